"""Entries of a run's journal: rows of `spans`, a line or a span with its times."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple

import orjson

from triggerkit.errors import repr_of
from triggerkit.runs.run import storable

#: Largest attributes that are kept, in characters of JSON.
MAX_ATTRIBUTES = 16_000


class JournalEntry(NamedTuple):
    """A row of `spans`: of a line, `name` is its text."""

    run_id: str
    attempt: int
    kind: Literal["span", "log"]
    span_id: str | None
    parent: str | None
    name: str
    level: str | None
    attributes: str
    error: str | None
    started_at: datetime
    ended_at: datetime | None


def as_attributes(attributes: dict[str, Any]) -> str:
    """`attributes` as JSON that Postgres stores, whatever their values are."""
    try:
        text = orjson.dumps(attributes, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        text = "\\u0000"
    if "\\u0000" in text:
        shown = {
            storable(str(name)): storable(repr_of(value)) for name, value in attributes.items()
        }
        text = orjson.dumps(shown).decode()
    if len(text) > MAX_ATTRIBUTES:
        return orjson.dumps({"left out": f"attributes of {len(text):,} characters"}).decode()
    return text
