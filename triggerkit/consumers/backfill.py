"""Backfill: existing rows into the log, each at a place where no newer change precedes it.

A chunk is read by a known snapshot, then a marker is sent through the WAL. At the marker's place
in the stream, rows touched by a transaction the snapshot does not see are dropped (the change
itself is in the log, or is its later bearer), and the others are appended. See
docs/delivery-semantics.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import NamedTuple

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from triggerkit.change import RowChange, Transaction
from triggerkit.consumers.chunk import Chunk, ChunkReader, Place
from triggerkit.consumers.definition import TableName
from triggerkit.consumers.snapshot import TouchedKeys
from triggerkit.failpoints import reach
from triggerkit.log.entry import Pending
from triggerkit.log.writer import Statement
from triggerkit.replication import signal
from triggerkit.state.connect import connect

logger = logging.getLogger(__name__)

#: Prefix of our messages in the WAL.
MARKER_PREFIX = "triggerkit.chunk"

#: How often to look whether the first marker's transaction became visible.
VISIBILITY_CHECK_S = 0.02

_OPEN = """
SELECT b.id, b.consumer_id, b.schema_name, b.table_name, b.sort_column, b.upper_bound, b.cursor
FROM triggerkit.backfills b JOIN triggerkit.consumers c ON c.id = b.consumer_id
WHERE b.state = 'active' AND c.database_id = %s ORDER BY b.id
"""

#: From this position on, unrelated updates may be the only bearers of rows.
_BEGIN = """
UPDATE triggerkit.backfills SET first_position = coalesce(first_position, %s) WHERE id = %s
"""

_START = """
UPDATE triggerkit.backfills SET upper_bound = coalesce(upper_bound, %s), rows_estimated = %s
WHERE id = %s
"""

#: Committed together with the chunk's rows.
_PROGRESS = """
UPDATE triggerkit.backfills
SET cursor = %s, rows_read = rows_read + %s, rows_logged = rows_logged + %s,
    state = CASE WHEN %s AND state = 'active' THEN 'completed' ELSE state END,
    finished_at = CASE WHEN %s THEN clock_timestamp() END,
    last_position = CASE WHEN %s THEN %s END
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
    upper_bound: Place | None
    cursor: dict[str, object] | None

    @property
    def table(self) -> TableName:
        """The table it reads."""
        return TableName(self.schema_name, self.table_name)


class Survivors(NamedTuple):
    """What a marker puts into the log, and the progress to store with it."""

    pending: list[Pending]
    read: int
    reader: TableBackfill

    def progress(self, head: int) -> Statement:
        """The statement that stores the progress; `head` is the log's position after the rows."""
        return self.reader.progress(self.read, len(self.pending), head)


@dataclass(slots=True)
class _InFlight:
    number: int
    chunk: Chunk
    nulls: bool
    stored: asyncio.Event = field(default_factory=asyncio.Event)


class TableBackfill:
    """Reads one table for one consumer, one chunk in flight at a time."""

    def __init__(self, backfill: OpenBackfill, source_dsn: str, pool: AsyncConnectionPool) -> None:
        self.backfill = backfill
        self.touched = TouchedKeys()
        self._source_dsn = source_dsn
        self._pool = pool
        self._number = 0
        self._process = token_hex(4)
        self._in_flight: _InFlight | None = None

    async def run(self, head: int, begun: Callable[[], Awaitable[object]]) -> None:
        """Read the table to its end; `head` is the log's last position when recording began.

        `begun` is awaited before anything is read: from then on `when_changed` must not filter.
        """
        backfill = self.backfill
        async with self._pool.connection() as connection:
            await connection.execute(_BEGIN, [head + 1, backfill.id])
        await begun()
        async with await connect(self._source_dsn, "triggerkit backfill") as source:
            await source.execute("SET row_security = off")
            await self._wait_until_visible(source)
            reader = ChunkReader(source, backfill.table, backfill.sort_column)
            await reader.open()
            await self._start(reader)
            after, nulls = self._place()
            while True:
                chunk = await reader.read(after, backfill.upper_bound, nulls=nulls)
                reach("chunk-read")
                self.touched.forget(chunk.snapshot)
                await self._store(source, chunk, nulls)
                if chunk.finished and (nulls or backfill.sort_column is None):
                    return
                after = None if chunk.finished else chunk.rows[-1].place
                nulls = nulls or chunk.finished

    def survivors(self, mark: str, transaction: Transaction) -> Survivors | None:
        """The rows of the chunk marked `mark` that no unseen transaction touched.

        None for another chunk than the one in flight: a marker may be from an earlier process.
        """
        flight = self._in_flight
        if flight is None or self._mark(flight.number) != mark:
            return None
        table, chunk = self.backfill.table, flight.chunk
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
        return Survivors(pending, len(chunk.rows), self)

    def progress(self, read: int, logged: int, head: int) -> Statement:
        """The statement that stores how far the chunk in flight brings the backfill."""
        flight = self._in_flight
        assert flight is not None
        chunk = flight.chunk
        done = chunk.finished and (flight.nulls or self.backfill.sort_column is None)
        nulls = flight.nulls or chunk.finished
        after = None if chunk.finished or not chunk.rows else chunk.rows[-1].place
        cursor = Jsonb({"nulls": nulls, "after": after})
        return Statement(
            _PROGRESS, [cursor, read, logged, done, done, done, head, self.backfill.id]
        )

    def stored(self) -> None:
        """The chunk in flight is durable in the log."""
        if self._in_flight is not None:
            self._in_flight.stored.set()

    def _mark(self, number: int) -> str:
        return f"{self._process}:{number}"

    def _place(self) -> tuple[Place | None, bool]:
        cursor = self.backfill.cursor
        if cursor is None:
            return None, False
        after = cursor["after"]
        return (list(map(str, after)) if isinstance(after, list) else None), bool(cursor["nulls"])

    async def _wait_until_visible(self, source: psycopg.AsyncConnection) -> None:
        """Wait until all that was decoded before keys were recorded is visible to a snapshot."""
        marker_xid = await self._emit(source, 0)
        while True:
            cursor = await source.execute("SELECT txid_snapshot_xmin(txid_current_snapshot())")
            row = await cursor.fetchone()
            if row and row[0] > marker_xid:
                return
            await asyncio.sleep(VISIBILITY_CHECK_S)

    async def _start(self, reader: ChunkReader) -> None:
        if self.backfill.upper_bound is None:
            self.backfill.upper_bound = await reader.upper_bound()
        estimate = await reader.estimate()
        bound = None if self.backfill.upper_bound is None else Jsonb(self.backfill.upper_bound)
        async with self._pool.connection() as connection:
            await connection.execute(_START, [bound, estimate, self.backfill.id])

    async def _store(self, source: psycopg.AsyncConnection, chunk: Chunk, nulls: bool) -> None:
        self._number += 1
        self._in_flight = flight = _InFlight(self._number, chunk, nulls)
        await self._emit(source, self._number)
        reach("chunk-marked")
        await flight.stored.wait()
        reach("chunk-stored")
        self._in_flight = None

    async def _emit(self, source: psycopg.AsyncConnection, number: int) -> int:
        content = f"{self.backfill.id}:{self._mark(number)}"
        return await signal.emit(source, MARKER_PREFIX, content)


class Backfills:
    """The open backfills of one database, fed by its stream."""

    def __init__(self, source_dsn: str, pool: AsyncConnectionPool, database_id: int) -> None:
        self._source_dsn = source_dsn
        self._pool = pool
        self._database_id = database_id
        self._running: dict[int, TableBackfill] = {}

    async def open(self) -> list[TableBackfill]:
        """Begin recording touched keys for backfills that do not run yet, and return them."""
        async with (
            self._pool.connection() as connection,
            connection.cursor(row_factory=class_row(OpenBackfill)) as cursor,
        ):
            await cursor.execute(_OPEN, [self._database_id])
            found = await cursor.fetchall()
        new = [
            TableBackfill(b, self._source_dsn, self._pool)
            for b in found
            if b.id not in self._running
        ]
        self._running.update({b.backfill.id: b for b in new})
        return new

    def close(self, backfill: TableBackfill) -> None:
        """Stop recording for a finished backfill."""
        self._running.pop(backfill.backfill.id, None)

    def observe(self, xid: int, changes: Iterable[RowChange]) -> None:
        """Record which keys a transaction touched; called before the transaction is appended."""
        if not self._running:
            return
        changes = list(changes)
        for running in self._running.values():
            schema, name = running.backfill.table
            running.touched.record(
                xid, (c for c in changes if c.table == name and c.schema == schema)
            )

    def at_marker(self, content: bytes, transaction: Transaction) -> Survivors | None:
        """What the marker with `content` puts into the log at its place, if anything."""
        backfill_id, _, mark = content.decode().partition(":")
        running = self._running.get(int(backfill_id))
        return None if running is None else running.survivors(mark, transaction)
