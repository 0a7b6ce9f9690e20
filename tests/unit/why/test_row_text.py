"""The text of a row is read whatever its table is called and its key is."""

from __future__ import annotations

import pytest

from triggerkit.configuration.table_name import table_text
from triggerkit.message import row_key
from triggerkit.why.row_text import read_row


@pytest.mark.parametrize("table", ["posts", "a:b", "a[b", "a:[b", 'a:["1"]', "a.b"])
@pytest.mark.parametrize("key", [["1"], ["a", "b:[c"], ["[", "]"], [":["], ["\u202e\n"], []])
def test_a_row_is_read_back(table: str, key: list[str]) -> None:
    found = read_row(row_key("public", table, key))
    assert found == (table_text("public", table), key)


@pytest.mark.parametrize("text", ["", "public.posts", "a:[", "a:[b]", "a:[1]]", "[1]", "a:{}"])
def test_what_is_no_row_is_none(text: str) -> None:
    assert read_row(text) is None
