"""What pages show of rows and values: nothing that is not known, nothing that is too long."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from triggerkit.consumers.trace.changes import Trace
from triggerkit.web.dashboard.diff import Column, columns_of
from triggerkit.web.dashboard.values import finalized, milliseconds, one_line, pretty, row_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def change(action: str, record: dict[str, Any] | None, changes: dict[str, Any] | None) -> Trace:
    return Trace(
        database="d", position=1, partition=0, table="public.items", key=["1"], action=action,
        commit_lsn=1, commit_idx=0, xid=1, committed_at=NOW, captured_at=NOW, record=record,
        changes=changes, fault=None, consumers=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("action", "changes", "expected"),
    [
        ("insert", None, [Column("id", None, 1, True), Column("text", None, "b", True)]),
        ("read", None, [Column("id", None, 1, True), Column("text", None, "b", True)]),
        ("update", {"text": "a"}, [Column("text", "a", "b", True), Column("id", 1, 1, False)]),
        # Nothing changed; and the old values are not known.
        ("update", None, [Column("id", 1, 1, False), Column("text", "b", "b", False)]),
        ("update", {}, [Column("id", None, 1, False), Column("text", None, "b", False)]),
        ("delete", None, [Column("id", 1, None, True), Column("text", "b", None, True)]),
    ],
)
def test_a_row_is_shown_before_and_after_as_far_as_it_is_known(
    action: str, changes: dict[str, Any] | None, expected: list[Column]
) -> None:
    assert columns_of(change(action, {"id": 1, "text": "b"}, changes)) == expected


def test_a_truncate_has_no_columns() -> None:
    assert columns_of(change("truncate", None, None)) == []


def test_values_are_exact_or_named_by_their_size() -> None:
    assert one_line(2**80) == str(2**80)
    assert one_line([0.5] * 1536) == "1536 floats"
    assert one_line([1] * 17) == "17 numbers"
    assert one_line([True] * 17) == f"[{', '.join(['true'] * 17)}]"
    assert one_line(f"[{','.join(['-1.5e-3'] * 400)}]") == "400 floats"
    assert one_line("x" * 3000).endswith("… 1,000 more characters")
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    assert "…" in pretty(deep)
    assert len(pretty(["y" * 100] * 10_000)) < 21_000


def test_what_a_terminal_or_a_reader_would_obey_is_written_out() -> None:
    assert finalized("a\x1b[2J\u202eb\x00") == "a\\x1b[2J\\u202eb\\x00"
    assert finalized(None) == ""


def test_durations_and_rows_are_short() -> None:
    assert [milliseconds(s) for s in (0.00123, 9.9, 61.25, 1800, 90_000)] == [
        "1.2 ms", "9,900.0 ms", "61.2 s", "30 min", "25.0 h",
    ]  # fmt: skip
    assert row_of({"key": 'public.items:["1","x"]'}) == "public.items 1,x"
    assert row_of({"schedule": "nightly"}) == row_of(None) == ""
