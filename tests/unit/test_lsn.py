"""Positions in the write-ahead log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerkit.lsn import Lsn
from triggerkit.replication.versions import full_xid


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_an_lsn_is_read_as_it_is_printed(value: int) -> None:
    assert Lsn.parse(str(Lsn(value))) == value


def test_an_lsn_prints_as_postgres_prints_it() -> None:
    assert str(Lsn((0x16 << 32) | 0xB374D848)) == "16/B374D848"


@pytest.mark.parametrize("text", ["", "16", "16/", "x/1"])
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Lsn.parse(text)


@given(st.integers(min_value=0, max_value=2**63), st.integers(min_value=-(2**30), max_value=2**30))
def test_a_transaction_id_is_extended_by_the_one_before(reference: int, step: int) -> None:
    full = max(0, reference + step)
    assert full_xid(full & 0xFFFFFFFF, reference) == full
