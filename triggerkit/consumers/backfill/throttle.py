"""Hold a backfill back: by a limit of rows per second, and for a consumer that does not follow."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import NamedTuple

from psycopg_pool import AsyncConnectionPool

from triggerkit.log.entry import PARTITIONS

#: Rows and bytes that a backfill puts into the log before its consumer passed them.
MOST_OUTSTANDING_ROWS = 200_000
MOST_OUTSTANDING_BYTES = 1024 * 1024 * 1024

#: A backfill that was held back goes on when this share of it is left.
GOES_ON_AT = 0.5

#: The share of a new chunk in the rate that is shown.
RATE_WEIGHT = 0.3

#: The first row of a backfill that its consumer has not passed. Cursors alone do not tell it: where
#: nothing follows that is the consumer's, they stay at what was the last.
_NEXT = """
SELECT min(e.position)
FROM triggerkit.backfills b
JOIN triggerkit.consumers c ON c.id = b.consumer_id
JOIN triggerkit.cursors k ON k.consumer_id = c.id
JOIN generate_series(0, %s - 1) p ON k.partition IN (p, -1)
CROSS JOIN LATERAL (
    SELECT e.position FROM triggerkit.events e
    WHERE e.database_id = c.database_id AND e.partition = p AND e.backfill_id = b.id
      AND e.position > greatest(k.position, b.first_position - 1)
    ORDER BY e.position LIMIT 1) e
WHERE b.id = %s
"""

#: What an earlier process put into the log, counted up to a limit.
_OUTSTANDING = """
SELECT d.next_position - 1, count(e), coalesce(sum(e.bytes), 0)::bigint
FROM triggerkit.backfills b
JOIN triggerkit.consumers c ON c.id = b.consumer_id
JOIN triggerkit.databases d ON d.id = c.database_id
JOIN triggerkit.cursors k ON k.consumer_id = c.id
JOIN generate_series(0, %s - 1) p ON k.partition IN (p, -1)
LEFT JOIN LATERAL (
    SELECT octet_length(e.record) AS bytes FROM triggerkit.events e
    WHERE e.database_id = d.id AND e.partition = p AND e.backfill_id = b.id
      AND e.position > greatest(k.position, b.first_position - 1)
    LIMIT %s) e ON true
WHERE b.id = %s AND b.rows_logged > 0
GROUP BY 1
"""


class RateLimit:
    """The limit of rows per second, and the rate that was reached."""

    def __init__(self, rows_per_s: int | None) -> None:
        self._rows_per_s = rows_per_s
        self._due_at = monotonic()
        self._last_at: float | None = None
        self._last_rows = 0
        #: Rows per second lately, pauses between chunks included; None before the second chunk.
        self.rate: float | None = None

    def wait_s(self) -> float:
        """Return the seconds to wait before the next chunk."""
        return max(0.0, self._due_at - monotonic())

    def read(self, rows: int) -> None:
        """Note that a chunk was read."""
        now = monotonic()
        if self._rows_per_s is not None:
            self._due_at = max(now, self._due_at) + rows / self._rows_per_s
        if self._last_at is not None:
            # A chunk's rows count for the time until the next one: that is how long it is held.
            rate = self._last_rows / max(now - self._last_at, 1e-6)
            before = rate if self.rate is None else self.rate
            self.rate = before + RATE_WEIGHT * (rate - before)
        self._last_at, self._last_rows = now, rows


class _Part(NamedTuple):
    """Rows in the log up to `head`."""

    head: int
    rows: int
    size_bytes: int


class Outstanding:
    """Rows that a backfill put into the log and its consumer has not passed yet.

    Without a limit, a huge table whose endpoint is slow, or gone, would be copied into the log as
    a whole. Only the backfill's own rows count: what others do cannot hold it back forever.
    """

    def __init__(self, pool: AsyncConnectionPool, backfill_id: int) -> None:
        self._pool = pool
        self._backfill_id = backfill_id
        self._parts: deque[_Part] | None = None
        self._rows = self._size_bytes = 0
        self._is_held = False

    def add(self, head: int, rows: int, size_bytes: int) -> None:
        """Note a chunk that is in the log up to position `head`."""
        if self._parts is not None and rows:
            self._put(_Part(head, rows, size_bytes))

    async def holds_back(self) -> bool:
        """Return whether nothing more is to be read now. Costs a query only when there is much."""
        if self._parts is None:
            self._parts = deque()
            await self._count()
        if self._is_much():
            await self._drop_passed()
        self._is_held = self._is_much()
        return self._is_held

    def _is_much(self) -> bool:
        share = GOES_ON_AT if self._is_held else 1.0
        return (
            self._rows > share * MOST_OUTSTANDING_ROWS
            or self._size_bytes > share * MOST_OUTSTANDING_BYTES
        )

    def _put(self, part: _Part) -> None:
        assert self._parts is not None
        self._parts.append(part)
        self._rows += part.rows
        self._size_bytes += part.size_bytes

    async def _count(self) -> None:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                _OUTSTANDING, [PARTITIONS, MOST_OUTSTANDING_ROWS, self._backfill_id]
            )
            row = await cursor.fetchone()
        if row is not None and row[1]:
            self._put(_Part(*row))

    async def _drop_passed(self) -> None:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_NEXT, [PARTITIONS, self._backfill_id])
            row = await cursor.fetchone()
        assert self._parts is not None
        following = row[0] if row else None
        while self._parts and (following is None or self._parts[0].head < following):
            part = self._parts.popleft()
            self._rows -= part.rows
            self._size_bytes -= part.size_bytes
