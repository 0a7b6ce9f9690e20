"""The rule that keeps a backfill from delivering a stale row."""

from __future__ import annotations

import pytest

from triggerkit.change import RowChange
from triggerkit.consumers.backfill.snapshot import Snapshot, TouchedKeys


def change(key: str) -> RowChange:
    return RowChange("public", "posts", "update", (key,), {"id": key}, {})


TRUNCATE = RowChange("public", "posts", "truncate", (), None)


def test_a_snapshot_is_read_as_postgres_prints_it() -> None:
    assert Snapshot.parse("10:20:10,14,15") == Snapshot(10, 20, frozenset({10, 14, 15}))
    assert Snapshot.parse("10731:10731:") == Snapshot(10731, 10731, frozenset())


def test_what_a_snapshot_sees_is_below_xmin_or_ended_between() -> None:
    snapshot = Snapshot.parse("10:20:14")
    assert snapshot.sees(9)
    assert snapshot.sees(13)
    assert not snapshot.sees(14)
    assert not snapshot.sees(20)


def test_a_row_decoded_before_it_was_visible_is_stale() -> None:
    # As measured with an absent synchronous standby: the update 10731 is decoded, not visible.
    touched = TouchedKeys()
    touched.record(10731, [change("3")])
    snapshot = Snapshot.parse("10731:10731:")
    assert touched.is_stale(("3",), snapshot)
    assert not touched.is_stale(("4",), snapshot)


def test_a_row_touched_by_a_visible_transaction_is_not_stale() -> None:
    touched = TouchedKeys()
    touched.record(9, [change("3")])
    assert not touched.is_stale(("3",), Snapshot.parse("10:20:14"))


def test_the_last_transaction_that_touched_a_row_decides() -> None:
    touched = TouchedKeys()
    touched.record(9, [change("3")])
    touched.record(14, [change("3")])
    assert touched.is_stale(("3",), Snapshot.parse("10:20:14"))


def test_truncate_touches_every_row() -> None:
    touched = TouchedKeys()
    touched.record(14, [TRUNCATE])
    assert touched.is_stale(("any",), Snapshot.parse("10:20:14"))
    assert not touched.is_stale(("any",), Snapshot.parse("20:20:"))


def test_a_key_is_forgotten_only_when_every_later_snapshot_sees_its_change() -> None:
    touched = TouchedKeys()
    touched.record(9, [change("seen")])
    touched.record(14, [change("unseen")])
    touched.forget(Snapshot.parse("10:20:14"))
    assert touched.is_stale(("unseen",), Snapshot.parse("10:20:14"))
    assert not touched.is_stale(("seen",), Snapshot.parse("5:20:9"))


def test_what_cannot_be_remembered_is_not_known_until_a_snapshot_sees_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("triggerkit.consumers.backfill.snapshot.MOST_BYTES", 3_000)
    touched = TouchedKeys()
    touched.record(30, [change(str(n)) for n in range(5)])
    assert touched.knows_all(Snapshot.parse("10:40:10"))
    touched.record(20, [change(str(n)) for n in range(5, 15)])
    assert not touched.knows_all(Snapshot.parse("10:40:10"))
    assert not touched.knows_all(Snapshot.parse("30:40:30"))
    assert touched.knows_all(Snapshot.parse("31:40:"))
    # What comes after is remembered again.
    touched.record(50, [change("0")])
    assert touched.is_stale(("0",), Snapshot.parse("45:50:"))
