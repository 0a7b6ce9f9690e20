"""Reading the log: from memory what was just appended, from Postgres what is older."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict, deque
from dataclasses import dataclass

from psycopg_pool import AsyncConnectionPool

from triggerkit.log.entry import PARTITIONS, Entry

#: Bytes kept in memory for consumers that are near the head of the log.
TAIL_BYTES = 64 * 1024 * 1024

_READ = """
SELECT position, partition, schema_name, table_name, key, action, commit_lsn, commit_idx,
       to_char(commit_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       xid, convert_to(record, 'UTF8'), convert_to(changes, 'UTF8'),
       coalesce(unchanged, '{}'), consumer_id, backfill_id
FROM triggerkit.events
WHERE database_id = %s AND partition = %s AND position > %s AND position <= %s
ORDER BY position LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class _Append:
    """The entries of one append by partition, and the positions it covers."""

    first: int
    last: int
    size_bytes: int
    by_partition: dict[int, list[Entry]]


class LogReader:
    """Reads one database's log and wakes those who wait for its head to move."""

    def __init__(self, pool: AsyncConnectionPool, database_id: int, head: int) -> None:
        """`head` is the last position in the log, 0 when it is empty."""
        self._pool = pool
        self._database_id = database_id
        self._tail: deque[_Append] = deque()
        self._tail_bytes = 0
        self._heads = [head] * PARTITIONS
        self._moved = [asyncio.Event() for _ in range(PARTITIONS)]
        self.head = head

    def appended(self, entries: list[Entry], head: int) -> None:
        """Note an append: `entries` if they were kept, and the log's last position after it."""
        is_complete = len(entries) == head - self.head
        if is_complete and entries:
            self._keep(entries)
        elif not is_complete:
            self._tail.clear()
            self._tail_bytes = 0
        self.head = head
        for partition in {e.partition for e in entries} if is_complete else range(PARTITIONS):
            self._heads[partition] = head
            self._moved[partition].set()

    async def wait(self, partition: int, after: int) -> None:
        """Return once `partition` may hold an entry after position `after`."""
        while self._heads[partition] <= after:
            self._moved[partition].clear()
            await self._moved[partition].wait()

    async def read(self, partition: int, after: int, limit: int) -> list[Entry]:
        """At most `limit` entries of `partition` with a position greater than `after`, in order."""
        if self._tail and self._tail[0].first <= after + 1:
            return self._from_tail(partition, after, limit)
        return await self.read_stored(partition, after, self.head, limit)

    async def read_stored(self, partition: int, after: int, until: int, limit: int) -> list[Entry]:
        """Entries from Postgres: `after` is exclusive, `until` inclusive."""
        parameters = [self._database_id, partition, after, until, limit]
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_READ, parameters, binary=True)
            rows = await cursor.fetchall()
        return [Entry._make((*row[:12], tuple(row[12]), *row[13:])) for row in rows]

    def _keep(self, entries: list[Entry]) -> None:
        grouped: defaultdict[int, list[Entry]] = defaultdict(list)
        size_bytes = 0
        for entry in entries:
            grouped[entry.partition].append(entry)
            size_bytes += entry.size_bytes
        self._tail.append(_Append(entries[0].position, entries[-1].position, size_bytes, grouped))
        self._tail_bytes += size_bytes
        while self._tail_bytes > TAIL_BYTES:
            self._tail_bytes -= self._tail.popleft().size_bytes

    def _from_tail(self, partition: int, after: int, limit: int) -> list[Entry]:
        found: list[Entry] = []
        for append in self._tail:
            if append.last <= after or partition not in append.by_partition:
                continue
            entries = append.by_partition[partition]
            start = bisect_right(entries, after, key=lambda e: e.position)
            found.extend(entries[start : start + limit - len(found)])
            if len(found) >= limit:
                break
        return found
