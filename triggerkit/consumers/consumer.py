"""A consumer as it is stored, and which entries of the log it gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.consumers.endpoints.model import SealedEndpoint
from triggerkit.log.entry import Entry

# The partition of the one cursor of a consumer that is ordered as a whole.
from triggerkit.log.reader import ALL_PARTITIONS as ALL_PARTITIONS


@dataclass(frozen=True, slots=True)
class BackfillSpan:
    """The positions during which a table was being read for a consumer; `last` None: still is."""

    table: tuple[str, str]
    first: int
    last: int | None

    def covers(self, entry: Entry) -> bool:
        """Return whether `entry` was logged while its table was being read."""
        return (
            self.first <= entry.position
            and (self.last is None or entry.position <= self.last)
            and self.table == (entry.schema, entry.table)
        )


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer, the database it follows and the endpoint it pushes to, None if it is pulled."""

    id: int
    name: str
    definition: ConsumerDefinition
    replay_epoch: int
    state: str
    database_id: int
    database_name: str
    database_epoch: int
    system_identifier: str
    target: SealedEndpoint | None
    spans: tuple[BackfillSpan, ...] = ()

    def wants(self, entry: Entry) -> bool:
        """Return whether `entry` is for this consumer, its filters left aside."""
        definition = self.definition
        if entry.consumer_id is not None:
            return entry.consumer_id == self.id
        if f"{entry.schema}.{entry.table}" not in definition.tables:
            return False
        if definition.actions is not None and entry.action not in definition.actions:
            return False
        if entry.action != "update" or definition.when_changed is None:
            return True
        return self._changed(entry, definition.when_changed)

    def key_of(self, entry: Entry) -> str:
        """Return the key that keeps messages in order: the row, or the values of the columns it
        groups by."""
        columns = self.definition.group_by
        if columns is None:
            return f"{entry.schema}.{entry.table}:{entry.key}"
        record: dict[str, Any] = orjson.loads(entry.record or b"{}")
        return orjson.dumps([record.get(name) for name in columns]).decode()

    def _changed(self, entry: Entry, columns: tuple[str, ...]) -> bool:
        changes: dict[str, Any] = orjson.loads(entry.changes or b"{}")
        # Without the old values in the WAL nothing says that the columns did not change. And a row
        # touched by an unrelated update while its table was read may have lost its place in the
        # backfill to that update, which is then the only bearer of the row.
        if not changes or not changes.keys().isdisjoint(columns):
            return True
        return any(span.covers(entry) for span in self.spans)
