"""Reading a table: existing rows into the log, each at a place where no newer change precedes it.

A chunk is read by a known snapshot, then a marker is sent through the WAL. At the marker's place
in the stream, rows touched by a transaction the snapshot does not see are dropped (the change
itself is in the log, or is its later bearer), and the others are appended. See
docs/delivery-semantics.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from triggerkit.change import RowChange, Transaction
from triggerkit.consumers.backfill.chunk import MOST_ROWS, Chunk, ChunkReader
from triggerkit.consumers.backfill.rows import Bounds, Place
from triggerkit.consumers.backfill.snapshot import Snapshot, TouchedKeys
from triggerkit.consumers.backfill.throttle import Outstanding, RateLimit
from triggerkit.consumers.definition import TableName
from triggerkit.failpoints import reach
from triggerkit.log.entry import Pending
from triggerkit.log.writer import Statement
from triggerkit.replication import wal_marker
from triggerkit.replication.sighting import Sighting
from triggerkit.state.connect import connect

#: Prefix of our messages in the WAL.
MARKER_PREFIX = "triggerkit.chunk"

#: How often to look whether the first marker's transaction became visible, at first and at last.
VISIBILITY_CHECK_S = 0.02
VISIBILITY_CHECK_MOST_S = 1.0

#: From this position on, unrelated updates may be the only bearers of rows.
_BEGIN = """
UPDATE triggerkit.backfills
SET first_position = coalesce(first_position, %s), last_position = NULL WHERE id = %s
"""

_START = "UPDATE triggerkit.backfills SET upper_bound = %s, rows_estimated = %s WHERE id = %s"

#: Committed together with the chunk's rows. One that was paused with its last chunk in flight is
#: complete all the same. What was closed before its last chunk came is closed again after it.
_PROGRESS = """
UPDATE triggerkit.backfills
SET cursor = %s, rows_read = rows_read + %s, rows_logged = rows_logged + %s,
    state = CASE WHEN %s AND state IN ('active', 'paused') THEN 'completed' ELSE state END,
    finished_at = CASE WHEN %s THEN clock_timestamp() ELSE finished_at END,
    last_position = CASE WHEN %s OR last_position IS NOT NULL THEN %s END
WHERE id = %s
"""


@dataclass(slots=True)
class OpenBackfill:
    """A backfill that is not finished, as the state has it."""

    id: int
    consumer_id: int
    schema_name: str
    table_name: str
    sort_column: str | None
    lower_bound: list[str] | None
    upper_bound: dict[str, Any] | None
    cursor: dict[str, Any] | None
    rows_per_s: int | None

    @property
    def bounds(self) -> Bounds:
        """Describe the rows that are asked for."""
        lower = self.lower_bound[0] if self.lower_bound else None
        return Bounds(lower, (self.upper_bound or {}).get("until"))

    @property
    def is_begun(self) -> bool:
        """Return whether the end of the reading was determined already."""
        return self.upper_bound is not None and "last" in self.upper_bound

    @property
    def table(self) -> TableName:
        """The table it reads."""
        return TableName(self.schema_name, self.table_name)


class Survivors(NamedTuple):
    """Rows that a marker puts into the log, what their table was seen to be, and the progress to
    store with them."""

    pending: list[Pending]
    read: int
    reader: TableBackfill
    sighting: Sighting | None

    def progress(self, head: int) -> Statement:
        """Return the statement that stores the progress; `head` is the log's position after the
        rows."""
        return self.reader.progress(self.read, len(self.pending), head)


@dataclass(slots=True)
class _InFlight:
    number: int
    chunk: Chunk
    nulls: bool
    head: int = 0
    logged: int = 0
    #: Whether it is to be read again.
    is_void: bool = False
    stored: asyncio.Event = field(default_factory=asyncio.Event)


class TableBackfill:
    """Reads one table for one consumer, one chunk in flight at a time.

    It ends at the table's end, or after a chunk: when it is told to stop, or when its consumer
    does not follow.
    """

    def __init__(
        self,
        backfill: OpenBackfill,
        source_dsn: str,
        pool: AsyncConnectionPool,
        outstanding: Outstanding,
        publication: str,
    ) -> None:
        self._publication = publication
        self.backfill = backfill
        self.touched = TouchedKeys()
        self.is_complete = False
        self._source_dsn = source_dsn
        self._pool = pool
        self._outstanding = outstanding
        self._pace = RateLimit(backfill.rows_per_s)
        self._stop = asyncio.Event()
        self._number = 0
        self._process = token_hex(4)
        self._in_flight: _InFlight | None = None

    def go_on(self, wanted: bool) -> None:
        """Stop after the chunk in flight, or (if it did not stop yet) do not."""
        if wanted:
            self._stop.clear()
        else:
            self._stop.set()

    async def run(self, head: int, begun: Callable[[], Awaitable[object]]) -> None:
        """Read on; `head` is the log's last position when recording began, or an earlier one.

        `begun` is awaited before anything is read: from then on `when_changed` must not filter.

        Raises:
            PreflightFailed, psycopg.Error: see `fault_of`.
        """
        backfill = self.backfill
        async with self._pool.connection() as connection:
            await connection.execute(_BEGIN, [head + 1, backfill.id])
        await begun()
        async with await connect(self._source_dsn, "triggerkit backfill") as source:
            await source.execute("SET row_security = off")
            most_rows = min(MOST_ROWS, backfill.rows_per_s or MOST_ROWS)
            reader = ChunkReader(
                source,
                backfill.table,
                backfill.sort_column,
                backfill.bounds,
                most_rows,
                self._publication,
            )
            if await self._wait_until_visible(source):
                await reader.open()
                await self._start(reader)
                await self._read(source, reader)

    async def _read(self, source: psycopg.AsyncConnection, reader: ChunkReader) -> None:
        assert self.backfill.upper_bound is not None
        after, nulls = self._place()
        while not await self._stopped_within(self._pace.wait_s()):
            if await self._outstanding.holds_back():
                return
            last = self.backfill.upper_bound["last_null" if nulls else "last"]
            chunk = await reader.read(after, last, nulls=nulls)
            reach("chunk-read")
            self.touched.forget(chunk.snapshot)
            self._pace.read(len(chunk.rows))
            if not await self._store(source, chunk, nulls):
                if not await self._until_all_is_known(source):
                    return
                continue
            self.is_complete = self._is_last(chunk, nulls)
            if self.is_complete:
                return
            after = None if chunk.finished else chunk.rows[-1].place
            nulls = nulls or chunk.finished

    def _is_last(self, chunk: Chunk, nulls: bool) -> bool:
        """Rows without a sort value come after all others, and not when there are bounds."""
        backfill = self.backfill
        without_nulls = backfill.sort_column is None or not backfill.bounds.are_open
        return chunk.finished and (nulls or without_nulls)

    async def _stopped_within(self, seconds: float) -> bool:
        """Return whether it is told to stop, now or while so many seconds pass."""
        if seconds > 0 and not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stop.wait()
        return self._stop.is_set()

    def survivors(self, marker: str, transaction: Transaction) -> Survivors | None:
        """Return the rows of the chunk of the marker `marker` that no unseen transaction touched.

        None for another chunk than the one in flight: a marker may be from an earlier process. None
        also where it is not known which rows those are: they are read again.
        """
        flight = self._in_flight
        if flight is None or self._marker(flight.number) != marker:
            return None
        table, chunk = self.backfill.table, flight.chunk
        if not self.touched.knows_all(chunk.snapshot):
            flight.is_void = True
            flight.stored.set()
            return None
        rows = [r for r in chunk.rows if not self.touched.is_stale(r.key, chunk.snapshot)]
        pending = [
            Pending(
                transaction,
                index,
                RowChange(table.schema, table.name, "read", row.key, row.record),
                None,
                self.backfill.consumer_id,
                self.backfill.id,
            )
            for index, row in enumerate(rows)
        ]
        return Survivors(pending, len(chunk.rows), self, chunk.sighting)

    def progress(self, read: int, logged: int, head: int) -> Statement:
        """Return the statement that stores how far the chunk in flight brings the backfill."""
        flight = self._in_flight
        assert flight is not None
        flight.head, flight.logged = head, logged
        chunk = flight.chunk
        rate = self._pace.rate
        cursor = {
            "nulls": flight.nulls or chunk.finished,
            "after": None if chunk.finished or not chunk.rows else chunk.rows[-1].place,
            "rows_per_s": None if rate is None else round(rate, 1),
        }
        done = self._is_last(chunk, flight.nulls)
        return Statement(
            _PROGRESS, [Jsonb(cursor), read, logged, done, done, done, head, self.backfill.id]
        )

    def stored(self) -> None:
        """Note that the chunk in flight is durable in the log."""
        flight = self._in_flight
        if flight is not None:
            self._outstanding.add(flight.head, flight.logged, flight.chunk.size_bytes)
            flight.stored.set()

    def _marker(self, number: int) -> str:
        return f"{self._process}:{number}"

    def _place(self) -> tuple[Place | None, bool]:
        cursor = self.backfill.cursor
        if cursor is None:
            return None, False
        after = cursor["after"]
        return (list(map(str, after)) if isinstance(after, list) else None), bool(cursor["nulls"])

    async def _wait_until_visible(self, source: psycopg.AsyncConnection) -> bool:
        """Wait until all that was decoded before keys were recorded is visible to a snapshot.

        False when it is told to stop. A transaction that was open at the beginning and has
        written something is waited for, however long it stays open.
        """
        marker_xid = await self._emit(source, 0)
        return await self._until_seen(source, lambda snapshot: snapshot.xmin > marker_xid)

    async def _until_all_is_known(self, source: psycopg.AsyncConnection) -> bool:
        """Wait until a snapshot sees all that was touched while too much was to be remembered."""
        return await self._until_seen(source, self.touched.knows_all)

    async def _until_seen(
        self, source: psycopg.AsyncConnection, is_enough: Callable[[Snapshot], bool]
    ) -> bool:
        """Wait for a snapshot that sees enough; False when it is told to stop."""
        wait_s = VISIBILITY_CHECK_S
        while True:
            cursor = await source.execute("SELECT txid_current_snapshot()::text")
            row = await cursor.fetchone()
            if row and is_enough(Snapshot.parse(row[0])):
                return True
            if await self._stopped_within(wait_s):
                return False
            wait_s = min(2 * wait_s, VISIBILITY_CHECK_MOST_S)

    async def _start(self, reader: ChunkReader) -> None:
        """Determine, once, up to where to read: what lies beyond comes by the stream."""
        backfill = self.backfill
        if backfill.is_begun:
            return
        last_null: Place | None = None
        if backfill.sort_column is not None and backfill.bounds.are_open:
            last_null = await reader.last_place(nulls=True)
        bound = {
            "until": backfill.bounds.until,
            "last": await reader.last_place(nulls=False),
            "last_null": last_null,
        }
        estimate = await reader.estimate()
        async with self._pool.connection() as connection:
            await connection.execute(_START, [Jsonb(bound), estimate, backfill.id])
        backfill.upper_bound = bound

    async def _store(self, source: psycopg.AsyncConnection, chunk: Chunk, nulls: bool) -> bool:
        """Put the chunk into the log; False when it is to be read again."""
        self._number += 1
        self._in_flight = flight = _InFlight(self._number, chunk, nulls)
        await self._emit(source, self._number)
        reach("chunk-marked")
        await flight.stored.wait()
        reach("chunk-stored")
        self._in_flight = None
        return not flight.is_void

    async def _emit(self, source: psycopg.AsyncConnection, number: int) -> int:
        content = f"{self.backfill.id}:{self._marker(number)}"
        return await wal_marker.emit(source, MARKER_PREFIX, content)
