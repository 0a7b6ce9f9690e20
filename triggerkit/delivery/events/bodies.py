"""The bodies of pushes that are events: what the messages of the tables' topics have as value."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from triggerkit.consumers.calls.functions import Outcome
from triggerkit.consumers.parked.message import Head
from triggerkit.consumers.selection import Faulty
from triggerkit.consumers.source.relations import column_counts
from triggerkit.delivery.events.parked_entry import parked_entry
from triggerkit.events.event import ValueRenderer
from triggerkit.events.old_rows import old_rows
from triggerkit.log.entry import Entry
from triggerkit.log.json_object import split_object
from triggerkit.log.reader import LogReader


class EventBodies:
    """Makes the events of one database's changes, whether their tables have topics or not."""

    def __init__(self, reader: LogReader, database_id: int) -> None:
        self._reader = reader
        self._database_id = database_id
        self._values = ValueRenderer()

    async def of(self, entries: Sequence[Entry], wanted: Collection[int]) -> dict[int, bytes]:
        """Return the events of the entries at the positions `wanted`, by position. `entries` are
        all that there are of each of their keys between the first and the last."""
        old = await self._old_rows(entries, wanted)
        value = self._values.value
        return {e.position: value(e, old.get(e.position)) for e in entries if e.position in wanted}

    async def of_parked(self, head: Head, message: bytes) -> Outcome:
        """Return the event of a parked message."""
        entry = await parked_entry(self._reader, head, message)
        if entry.fault is not None:
            return Faulty(entry.fault, is_retryable=False)
        return (await self.of([entry], [entry.position]))[entry.position]

    async def _old_rows(
        self, entries: Sequence[Entry], wanted: Collection[int]
    ) -> dict[int, bytes]:
        """Return the rows before those deletes for which the WAL did not carry them."""
        deletes = [e for e in entries if e.action == "delete" and e.position in wanted]
        if not deletes:
            return {}
        async with self._reader.connection() as connection:
            counts = await column_counts(connection, self._database_id)
            lacking = [e.position for e in deletes if _has(e) < counts.get((e.schema, e.table), 0)]
            if not lacking:
                return {}
            return await old_rows(connection, self._database_id, entries, lacking)


def _has(entry: Entry) -> int:
    """Return how many columns an entry has."""
    return len(split_object(entry.record or b"{}")) + len(entry.unchanged)
