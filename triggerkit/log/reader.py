"""Reading the log: from memory what was just appended, from Postgres what is older."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from operator import attrgetter
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from triggerkit.log.entry import (
    CHANGES,
    COLUMNS,
    COMMIT_AT,
    PARTITIONS,
    RECORD,
    UNCHANGED,
    Entry,
)
from triggerkit.state.reading import Reads, rows_of
from triggerkit.timestamps import iso_utc_of

#: In place of a partition: all of them, in the order of their positions.
ALL_PARTITIONS = -1

#: Bytes kept in memory for consumers that are near the head of the log.
TAIL_BYTES = 64 * 1024 * 1024

# Named tuples made without their Python-level __new__ cost half.
_make = tuple.__new__

_WIDTH = len(COLUMNS)


def stored(**instead: str) -> str:
    """Return what to select for `entry_of_row`: the columns, or what is given instead of some.

    Little is done for them in Postgres: of a timestamp it is the bytes that stand for it there.
    """
    given = {"commit_at": "timestamptz_send(commit_at)", **instead}
    return ", ".join(given.get(name, name) for name in COLUMNS)


#: All columns of an entry as they are stored, for `entry_of_row`.
STORED = stored()

#: Seconds that a reader waits for as many entries as it can take, while much is about to come.
FILL_S = 0.1

#: Bytes of records that one read gives at most; an entry alone may be larger.
READ_BYTES = 1024 * 1024

# Sizes are known without the values: what is beyond the limit is neither fetched nor sent.
_BOUNDED = f"""
SELECT {STORED} FROM (
    SELECT *, sum(coalesce(octet_length(record), 0) + coalesce(octet_length(changes), 0))
        OVER (ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM ({{entries}}) e
) e
WHERE coalesce(bytes_before, 0) < %(most_bytes)s ORDER BY position
"""  # noqa: S608 - of constants

_READ = _BOUNDED.format(
    entries="""
    SELECT * FROM triggerkit.events
    WHERE database_id = %(database)s AND partition = %(partition)s
      AND position > %(after)s AND position <= %(until)s
    ORDER BY position LIMIT %(limit)s
"""
)

#: As many of each partition, by its index, then merged.
_READ_ALL = _BOUNDED.format(
    entries=f"""
    SELECT e.* FROM generate_series(0, {PARTITIONS - 1}) p CROSS JOIN LATERAL (
        SELECT * FROM triggerkit.events
        WHERE database_id = %(database)s AND partition = p
          AND position > %(after)s AND position <= %(until)s
        ORDER BY position LIMIT %(limit)s) e
    ORDER BY position LIMIT %(limit)s
"""  # noqa: S608 - of constants
)


async def stored_entry(reads: Reads, database_id: int, position: int) -> Entry | None:
    """Return the entry at a position, from Postgres; None when the log has it not."""
    at = {"database": database_id, "after": position - 1, "until": position, "limit": 1}
    rows = await rows_of(reads, _READ_ALL, {**at, "most_bytes": READ_BYTES})
    return entry_of_row(rows[0]) if rows else None


class LogReader:
    """Reads one database's log and wakes those who wait for its head to move."""

    def __init__(self, pool: AsyncConnectionPool, database_id: int, head: int) -> None:
        """`head` is the last position in the log, 0 when it is empty."""
        self._pool = pool
        self._database_id = database_id
        #: The entries from `_tail_first` on, by partition, in order; none are kept when it is None.
        self._tail: list[list[Entry]] = [[] for _ in range(PARTITIONS)]
        self._tail_first: int | None = None
        self._tail_bytes = 0
        # The last of each is that of all partitions, whose number is -1.
        self._heads = [head] * (PARTITIONS + 1)
        self._moved = [asyncio.Event() for _ in range(PARTITIONS + 1)]
        self._is_growing = False
        self.head = head

    def connection(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Return a connection to where the log is, for who looks for something else in it."""
        return self._pool.connection()

    def appended(self, entries: list[Entry], head: int, *, is_growing: bool = False) -> None:
        """Note an append: `entries` if they were kept, and the log's last position after it.

        It `is_growing` when much was read already that is appended next.
        """
        self._is_growing = is_growing
        is_complete = len(entries) == head - self.head
        if is_complete and entries:
            self._keep(entries)
        elif not is_complete:
            self._forget_until(head)
        self.head = head
        moved = {e.partition for e in entries} if is_complete else range(PARTITIONS)
        for partition in (*moved, ALL_PARTITIONS):
            self._heads[partition] = head
            self._moved[partition].set()

    async def wait(self, partition: int, after: int) -> None:
        """Return once `partition` may hold an entry after position `after`."""
        while self._heads[partition] <= after:
            self._moved[partition].clear()
            await self._moved[partition].wait()

    async def fill(self, partition: int, after: int, count: int) -> bool:
        """Wait for `count` entries of `partition` after position `after`, only while the log grows
        fast and not for long; whether they are in memory. What is older is read at once."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FILL_S):
                while (
                    self._is_growing
                    and self._keeps_all(after)
                    and not self.holds(partition, after, count)
                ):
                    self._moved[partition].clear()
                    await self._moved[partition].wait()
        return self.holds(partition, after, count)

    def has_nothing_after(self, partition: int, after: int) -> bool:
        """Return whether `partition` is known to have no entry after position `after`."""
        return self._heads[partition] <= after

    def holds(self, partition: int, after: int, count: int) -> bool:
        """Return whether `count` entries of `partition` after position `after` are in memory."""
        if partition == ALL_PARTITIONS:
            return sum(len(e) - bisect_right(e, after, key=_position) for e in self._tail) >= count
        entries = self._tail[partition]
        return len(entries) >= count and entries[-count].position > after

    async def read(self, partition: int, after: int, limit: int) -> list[Entry]:
        """At most `limit` entries of `partition` (or of all) after position `after`, in order."""
        if self._keeps_all(after):
            if partition == ALL_PARTITIONS:
                found = [e for p in range(PARTITIONS) for e in self._kept(p, after, limit)]
                return sorted(found, key=_position)[:limit]
            return self._kept(partition, after, limit)
        return await self.read_stored(partition, after, self.head, limit)

    async def read_stored(self, partition: int, after: int, until: int, limit: int) -> list[Entry]:
        """Entries from Postgres: `after` is exclusive, `until` inclusive.

        At most `limit`, and fewer when those would take more than `READ_BYTES`.
        """
        parameters = {
            "database": self._database_id,
            "partition": partition,
            "after": after,
            "until": until,
            "limit": limit,
            "most_bytes": READ_BYTES,
        }
        query = _READ_ALL if partition == ALL_PARTITIONS else _READ
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, parameters, binary=True)
            rows = await cursor.fetchall()
        return list(map(entry_of_row, rows))

    def _keeps_all(self, after: int) -> bool:
        return self._tail_first is not None and self._tail_first <= after + 1

    def _kept(self, partition: int, after: int, limit: int) -> list[Entry]:
        entries = self._tail[partition]
        start = bisect_right(entries, after, key=_position)
        return entries[start : start + limit]

    def _keep(self, entries: list[Entry]) -> None:
        if self._tail_first is None:
            self._tail_first = entries[0].position
        for entry in entries:
            self._tail[entry.partition].append(entry)
            self._tail_bytes += entry.size_bytes
        if self._tail_bytes > TAIL_BYTES:
            # Half at once, so that it costs nothing per entry.
            self._forget_until((self._tail_first + entries[-1].position) // 2)

    def _forget_until(self, last: int) -> None:
        """Keep only what is after position `last`."""
        for entries in self._tail:
            del entries[: bisect_right(entries, last, key=_position)]
        kept = [entry for entries in self._tail for entry in entries]
        self._tail_first = last + 1 if kept else None
        self._tail_bytes = sum(entry.size_bytes for entry in kept)


def entry_of_row(row: Sequence[Any]) -> Entry:
    """Return the entry of a row of a binary result that begins with `STORED`."""
    values = list(row[:_WIDTH])
    values[COMMIT_AT] = iso_utc_of(values[COMMIT_AT])
    if (record := values[RECORD]) is not None:
        values[RECORD] = record.encode()
    if (changes := values[CHANGES]) is not None:
        values[CHANGES] = changes.encode()
    values[UNCHANGED] = tuple(values[UNCHANGED] or ())
    return _make(Entry, values)


_position = attrgetter("position")
