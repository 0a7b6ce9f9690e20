"""Changes made up for tests: what their rows may be, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest
from pydantic import BaseModel

from tests.unit.testing import NOON
from triggerkit import UNCHANGED, Change, task
from triggerkit.errors import ConfigurationError
from triggerkit.testing import (
    fake_change,
    fake_message,
    run_task,
)


class Row(BaseModel):
    """A row."""

    id: int
    text: str | None = None


@dataclass
class Line:
    """Another one."""

    order: int
    number: int


def test_a_record_is_a_model_a_dataclass_or_a_dict() -> None:
    assert fake_change(Row(id=1)).key == fake_change({"id": 1}).key == 'public.posts:["1"]'
    assert fake_change(Line(4, 2), key=(4, 2), table="shop.lines").key == 'shop.lines:["4","2"]'
    moved = fake_change(Row(id=1, text="new"), old=Row(id=1, text="old"))
    assert (moved.action, moved.changes) == ("update", {"text": "old"})
    at = fake_change({"id": 1, "at": NOON}, old={"id": 1, "at": NOON - timedelta(days=1)})
    assert at.changes == {"at": "2029-12-31T12:00:00Z"}


def test_changes_follow_each_other_as_those_of_one_database_do() -> None:
    first, second = fake_change({"id": 1}).metadata, fake_change({"id": 1}).metadata
    for name in ("position", "commit_lsn", "xid"):
        assert getattr(first, name) < getattr(second, name)
    assert first.idempotency_key != second.idempotency_key
    assert fake_change({"id": 1}, action="read").metadata.xid is None
    assert fake_change({"id": 1}, action="update").changes == {}


def test_a_change_that_cannot_be_made_up_says_what_is_missing() -> None:
    with pytest.raises(ConfigurationError, match=r"no id: give its primary key with key="):
        fake_change({"number": 1})
    with pytest.raises(ConfigurationError, match=r"'public\.posts'"):
        fake_change({"id": 1}, table="posts")


def test_a_column_that_the_wal_does_not_carry_stays_unknown_on_the_way() -> None:
    @task
    def look(change: Change[Row]) -> list[bool]:
        text: object = change.record.text
        return [text is UNCHANGED, change.metadata.unchanged == ("text",)]

    change = fake_change({"id": 1, "text": UNCHANGED}, old={"id": 1, "text": "old"})
    assert (change.changes, change.metadata.unchanged) == ({"text": "old"}, ("text",))
    assert run_task(look, change).output == [True, True]
    assert "text" not in fake_message({"id": 1, "text": UNCHANGED})["record"]
