"""Reading a table: existing rows into the log, each at a place where no newer change precedes it.

A chunk is read by a known snapshot, then a marker is sent through the WAL. At the marker's place
in the stream, rows touched by a transaction the snapshot does not see are dropped (the change
itself is in the log, or is its later bearer), and the others are appended. See
docs/delivery-semantics.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from secrets import token_hex
from typing import NamedTuple

import psycopg
from psycopg_pool import AsyncConnectionPool

from triggerkit.change import Key, Record, RowChange, Transaction
from triggerkit.consumers.backfill.chunk import MOST_ROWS, ChunkReader
from triggerkit.consumers.backfill.left_out import MOST_KEYS, LeftOut, find_left_out, head_of
from triggerkit.consumers.backfill.opened import (
    OpenBackfill,
    Reached,
    begin_span,
    note_bound,
    progress_of,
)
from triggerkit.consumers.backfill.rows import Chunk, Place
from triggerkit.consumers.backfill.snapshot import Snapshot, TouchedKeys
from triggerkit.consumers.backfill.throttle import Outstanding, RateLimit
from triggerkit.failpoints import reach
from triggerkit.log.entry import Pending
from triggerkit.log.writing import Statement
from triggerkit.replication import wal_marker
from triggerkit.replication.sighting import Sighting
from triggerkit.state.connect import connect

#: Prefix of our messages in the WAL.
MARKER_PREFIX = "triggerkit.chunk"

#: How often to look whether the first marker's transaction became visible, at first and at last.
VISIBILITY_CHECK_S = 0.02
VISIBILITY_CHECK_MOST_S = 1.0

#: How often rows are read again whose values were changed since: one that is changed all the time
#: holds up no backfill.
MOST_PASSES = 10


class Survivors(NamedTuple):
    """Rows that a marker puts into the log, what their table was seen to be, and the progress to
    store with them."""

    pending: list[Pending]
    reader: TableBackfill
    sighting: Sighting | None

    def progress(self, head: int) -> Statement:
        """Return the statement that stores the progress; `head` is the log's position after the
        rows."""
        return self.reader.progress(len(self.pending), head)


@dataclass(slots=True)
class _InFlight:
    number: int
    chunk: Chunk
    #: How far the table is read with it.
    reached: Reached
    #: Whether its rows may have been counted before.
    is_again: bool
    is_last: bool
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
        self.touched.has_left_out = backfill.cursor is not None
        self.is_complete = False
        self._source_dsn = source_dsn
        self._pool = pool
        self._outstanding = outstanding
        self._pace = RateLimit(backfill.rows_per_s)
        self._stop = asyncio.Event()
        self._number = 0
        self._process = token_hex(4)
        self._first_position = 0
        self._keys_at_once = MOST_KEYS
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
        self._first_position = await begin_span(self._pool, backfill, head + 1)
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
        reached = self.backfill.reached
        while reached.again is None:
            if not await self._may_go_on():
                return
            last = self.backfill.upper_bound["last_null" if reached.nulls else "last"]
            chunk = await reader.read(reached.after, last, nulls=reached.nulls)
            then = self.backfill.after(chunk, reached.nulls, self._first_position)
            if await self._store(source, chunk, then):
                reached = then
            elif not await self._until_all_is_known(source):
                return
        if not self.is_complete:
            await self._read_again(source, reader, reached.again)

    async def _read_again(
        self, source: psycopg.AsyncConnection, reader: ChunkReader, position: int
    ) -> None:
        """Read again the rows whose changes left out a value, from a position of the log on."""
        for _ in range(MOST_PASSES):
            end = await head_of(self._pool, self.backfill)
            found = await self._left_out(position, end)
            if not found:
                break
            while found:
                if not await self._may_go_on():
                    return
                stored = await self._store_again(source, reader, found)
                if stored is None:
                    return
                position = stored
                found = await self._left_out(position, end)
        while not await self._store(
            source, await reader.read_again([]), Reached(again=position), is_last=True
        ):
            if not await self._until_all_is_known(source):
                return

    async def _left_out(self, position: int, end: int) -> list[LeftOut]:
        return await find_left_out(self._pool, self.backfill, position, end, self._keys_at_once)

    async def _store_again(
        self, source: psycopg.AsyncConnection, reader: ChunkReader, found: list[LeftOut]
    ) -> int | None:
        """Put rows into the log as they are now; returns the position after their changes, or None
        when it is told to stop."""
        keys = [change.key for change in found]
        # Else a row would be stale for the change that it is read for.
        xids = self.touched.follow(keys) | {change.xid for change in found}
        if not await self._until_seen(source, lambda snapshot: all(map(snapshot.sees, xids))):
            return None
        chunk = await reader.read_again(keys)
        while not chunk.finished and len(keys) > 1:
            self._keys_at_once = len(keys) // 2
            found, keys = found[: self._keys_at_once], keys[: self._keys_at_once]
            chunk = await reader.read_again(keys)
        then = found[-1].position + 1
        if await self._store(source, chunk, Reached(again=then), is_again=True):
            return then
        return found[0].position if await self._until_all_is_known(source) else None

    async def _may_go_on(self) -> bool:
        stopped = await self._stopped_within(self._pace.wait_s())
        return not stopped and not await self._outstanding.holds_back()

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
        pending = [
            Pending(
                transaction,
                index,
                RowChange(table.schema, table.name, "read", key, record),
                None,
                self.backfill.consumer_id,
                self.backfill.id,
            )
            for index, (key, record) in enumerate(self._surviving(chunk))
        ]
        return Survivors(pending, self, chunk.sighting)

    def _surviving(self, chunk: Chunk) -> Iterator[tuple[Key, Record]]:
        for row in chunk.rows:
            if not self.touched.is_stale(row.key, chunk.snapshot):
                yield row.key, row.record
            elif (record := self.touched.completed(row.key, row.record)) is not None:
                yield row.key, record

    def progress(self, logged: int, head: int) -> Statement:
        """Return the statement that stores how far the chunk in flight brings the backfill."""
        flight = self._in_flight
        assert flight is not None
        flight.head, flight.logged = head, logged
        # Up to here, nothing is to be read again.
        is_whole = flight.reached.again is not None and not self.touched.has_left_out
        self.is_complete = flight.is_last or is_whole
        return progress_of(
            self.backfill,
            flight.reached,
            self._pace.rate,
            (0 if flight.is_again else len(flight.chunk.rows), logged),
            head,
            is_last=self.is_complete,
        )

    def stored(self) -> None:
        """Note that the chunk in flight is durable in the log."""
        flight = self._in_flight
        if flight is not None:
            self._outstanding.add(flight.head, flight.logged, flight.chunk.size_bytes)
            flight.stored.set()

    def _marker(self, number: int) -> str:
        return f"{self._process}:{number}"

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
        await note_bound(self._pool, backfill, bound, estimate)

    async def _store(
        self,
        source: psycopg.AsyncConnection,
        chunk: Chunk,
        reached: Reached,
        *,
        is_again: bool = False,
        is_last: bool = False,
    ) -> bool:
        """Put the chunk into the log; False when it is to be read again."""
        reach("chunk-read")
        self.touched.forget(chunk.snapshot)
        self._pace.read(len(chunk.rows))
        self._number += 1
        self._in_flight = flight = _InFlight(self._number, chunk, reached, is_again, is_last)
        await self._emit(source, self._number)
        reach("chunk-marked")
        await flight.stored.wait()
        reach("chunk-stored")
        self._in_flight = None
        return not flight.is_void

    async def _emit(self, source: psycopg.AsyncConnection, number: int) -> int:
        content = f"{self.backfill.id}:{self._marker(number)}"
        return await wal_marker.emit(source, MARKER_PREFIX, content)
