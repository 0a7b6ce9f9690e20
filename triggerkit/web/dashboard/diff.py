"""The row before and after a change, column by column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from triggerkit.consumers.trace.changes import Trace


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a row, before and after the change."""

    name: str
    before: Any
    after: Any
    changed: bool


def columns_of(change: Trace) -> list[Column]:
    """Return the row's columns before and after its change, those that changed first; of an update
    whose old values are not known, only after it."""
    after, old = change.record or {}, change.changes or {}
    found = []
    for name in {**after, **old}:
        new = after.get(name)
        if change.action in ("insert", "read"):
            found.append(Column(name, None, new, changed=True))
        elif not knows_old_values(change):
            found.append(Column(name, None, new, changed=False))
        elif change.action == "delete":
            found.append(Column(name, new, None, changed=True))
        else:
            found.append(Column(name, old.get(name, new), new, changed=name in old))
    return sorted(found, key=lambda column: not column.changed)


def knows_old_values(change: Trace) -> bool:
    """Return whether the log has what an update changed: it has not where the WAL has not."""
    return change.action != "update" or change.changes != {}
