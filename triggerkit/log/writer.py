"""The one writer of a database's log: appends by COPY, in commit order, fenced by its epoch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

import psycopg

from triggerkit.errors import Fenced
from triggerkit.failpoints import reach
from triggerkit.log.entry import (
    COPY_COLUMNS,
    LARGEST_BYTES,
    VALUES,
    Entry,
    Pending,
    copy_row,
    entry_of,
    parameters,
)
from triggerkit.log.followed import Moves, note_moves
from triggerkit.log.tables import TABLE_BYTES, LogTables
from triggerkit.log.trust import Since, Trust
from triggerkit.log.unchanged import Lookup
from triggerkit.log.writing import ADVANCE, OPEN, Statement
from triggerkit.replication.sighting import Sighting
from triggerkit.state.connect import connect

#: An append of no more entries is one statement: a COPY takes five turns with the server.
SMALL_APPEND = 8

_COPY = f"COPY triggerkit.events ({COPY_COLUMNS}) FROM STDIN"

#: A whole append of one entry and of more, with as many rows of values as entries.
_APPENDS = [
    f"WITH advanced AS ({ADVANCE} RETURNING 1) "  # noqa: S608 - of constants
    f"INSERT INTO triggerkit.events ({COPY_COLUMNS}) SELECT entries.* "
    f"FROM (VALUES {', '.join([VALUES] * count)}) AS entries WHERE EXISTS (SELECT FROM advanced)"
    for count in range(1, SMALL_APPEND + 1)
]


class LogWriter:
    """Appends to the log of one database, over a connection of its own.

    Guarantee: when `commit` returns, what was written is durable, at ascending positions, in
    the order of `write`. An append that raises has left nothing. At most one append at a time.
    """

    def __init__(
        self, connection: psycopg.AsyncConnection, database_id: int, table_bytes: int
    ) -> None:
        self._connection = connection
        self._tables = LogTables(connection, database_id, table_bytes)
        #: Set when a table is filled, and what was in it is committed.
        self.filled = asyncio.Event()
        self.database_id = database_id
        #: What others that write for this writer are fenced by.
        self.epoch = 0
        self._stored_position = 1
        self._copy: AsyncExitStack | None = None
        self._stream: psycopg.AsyncCopy | None = None
        #: What was written since the last commit, or since `forget`; the first `_handed_over` of it
        #: are with the server.
        self._entries: list[Entry] = []
        self._handed_over = 0
        self._held_bytes = 0
        #: Whether some of what is held leaves values out that the log may have.
        self._lacks_values = False
        self._trust = Trust(connection, database_id)
        #: From where on the log is trusted, by the positions of entries that lack values.
        self._since: dict[int, Since] = {}
        #: Where the entries are that `commit` does not return.
        self.forgotten: Moves = {}
        self._last_handed_over: Entry | None = None
        self.epoch_position = 1
        #: The slot whose LSNs `last_commit_lsn` counts by.
        self.slot_epoch = 0
        #: The bytes of what `commit` is going to return.
        self.kept_bytes = 0
        self.next_position = 1
        self.last_commit_lsn = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls, dsn: str, database_id: int, table_bytes: int = TABLE_BYTES
    ) -> AsyncIterator[Self]:
        """Become the writer of this database's log. What was not committed at the end is gone.

        A table of it is ended when it has about `table_bytes`.

        Raises:
            CannotConnect: the state database does not answer.
        """
        connection = await connect(dsn, "triggerkit log")
        writer = cls(connection, database_id, table_bytes)
        try:
            await writer._take_over()
            yield writer
        finally:
            # Closed as it is: an interrupted COPY holds the connection, and waiting for it here
            # would be forever.
            await connection.close()
            with contextlib.suppress(psycopg.Error):
                await writer._end_copy()

    async def _take_over(self) -> None:
        cursor = await self._connection.execute(OPEN, [self.database_id])
        row = await cursor.fetchone()
        if row is None:
            raise Fenced(f"database {self.database_id} was removed from triggerkit.databases")
        self.epoch, self.next_position, self.last_commit_lsn, self.epoch_position, epoch = row
        self.slot_epoch = int(epoch)
        self._stored_position = self.next_position
        # A row's last version is read from the end of an index. Where few versions are expected,
        # the planner would rather read and sort them all, and some rows have very many.
        await self._connection.execute("SET enable_sort = off")
        await self._tables.take_over(self.next_position)

    def write(self, pending: Pending) -> int:
        """Add one change to the append, a truncate with its echoes; return the bytes now held in
        memory."""
        entry = entry_of(self.next_position, pending)
        self._write(entry, has_past=not pending.change.is_let_in)
        if entry.action == "truncate":
            for echo in self._entries[-1].echoes():
                self._write(echo._replace(position=self.next_position))
        return self._held_bytes

    def _write(self, entry: Entry, *, has_past: bool = True) -> None:
        size_bytes = entry.size_bytes
        if size_bytes > LARGEST_BYTES:
            entry = entry.without_record()
            size_bytes = entry.size_bytes
        position = self._tables.place(self.next_position, size_bytes)
        if position != self.next_position:
            entry = entry._replace(position=position)
        self.next_position = position + 1
        if entry.unchanged:
            self._lacks_values = True
            since = self._trust.since((entry.schema, entry.table))
            if since is not None and has_past:
                since = since._replace(position=max(since.position, self.epoch_position))
                self._since[position] = since
        elif entry.action == "truncate":
            self._trust.end((entry.schema, entry.table), self.next_position)
        self._entries.append(entry)
        self._held_bytes += size_bytes
        self.kept_bytes += size_bytes

    async def see(self, sighting: Sighting) -> None:
        """Take in what is seen of a relation, whose changes are written after it."""
        # The server is in the midst of a COPY on this connection.
        await self._end_copy()
        await self._trust.see(sighting, self.next_position)

    async def read(self, sighting: Sighting, first: int) -> None:
        """Take in what a backfill saw of the table whose rows it wrote, from position `first`
        on."""
        await self._end_copy()
        await self._trust.read(sighting, first, self.next_position)

    async def flush(self) -> None:
        """Hand what is held in memory to the server, not yet committed."""
        while self._lacks_values:
            await self._complete()
        await self._hand_over(self._held_count)

    async def _complete(self) -> None:
        """Put in the values that updates left out, at least of the first entries that are held.

        Those are handed over when all of them would take too much memory.
        """
        # The server is in the midst of a COPY on this connection: it sees what came so far after.
        await self._end_copy()
        lookup = Lookup(self._connection, self.database_id, self._since)
        held = self._entries[self._handed_over :]
        count = await lookup.complete(held, self._last_handed_over)
        self._entries[self._handed_over :] = [
            entry.without_record() if entry.size_bytes > LARGEST_BYTES else entry for entry in held
        ]
        before, self.kept_bytes = self.kept_bytes, _size_bytes(self._entries)
        self._tables.grow(self.kept_bytes - before)
        self._held_bytes = _size_bytes(self._entries[self._handed_over :])
        if count < len(held):
            await self._hand_over(count)
            self.forget()
        else:
            self._lacks_values = False
            self._since.clear()

    async def _hand_over(self, count: int) -> None:
        if not count:
            return
        if not self._tables.has(self.next_position):
            await self._end_copy()
            await self._begin()
            await self._tables.make(self.next_position)
        if self._stream is None:
            await self._begin()
            stack = AsyncExitStack()
            cursor = await stack.enter_async_context(self._connection.cursor())
            self._stream = await stack.enter_async_context(cursor.copy(_COPY))
            self._copy = stack
        rows: list[bytes] = []
        marks = self._trust.marks
        for entry in self._entries[self._handed_over : self._handed_over + count]:
            rows += copy_row(self.database_id, entry, is_marked=marks(entry))
        self._let_go(count)
        await self._stream.write(b"".join(rows))

    async def commit(
        self,
        last_commit_lsn: int,
        also: Sequence[Statement] = (),
        *,
        confirmed_lsn: int | None = None,
    ) -> list[Entry]:
        """Make the append durable, together with the statements in `also`.

        `confirmed_lsn` is what the slot is going to be told after it.

        Returns the entries written since the last commit, except those dropped by `forget`.

        Raises:
            Fenced: another writer took over; nothing of this append was kept.
        """
        if self._lacks_values:
            await self._complete()
        advance = self._advance(last_commit_lsn, confirmed_lsn)
        if self._is_small and not also:
            await self._append_small(advance)
        else:
            await self._append(advance, also)
        reach("log-committed")
        if self._tables.has_filled:
            self._tables.has_filled = False
            self.filled.set()
        self._stored_position = self.next_position
        self.last_commit_lsn = max(self.last_commit_lsn, last_commit_lsn)
        entries, self._entries = self._entries, []
        self._handed_over = 0
        self.kept_bytes = 0
        return entries

    @property
    def _held_count(self) -> int:
        return len(self._entries) - self._handed_over

    @property
    def _is_small(self) -> bool:
        return (
            0 < self._held_count <= SMALL_APPEND
            and not self._lacks_values
            and self._trust.is_saved
            and self._tables.has(self.next_position)
            and self._connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        )

    async def _append_small(self, advance: list[int | None]) -> None:
        reach("log-written")
        held = self._entries[self._handed_over :]
        marks = self._trust.marks
        rows = [
            value
            for entry in held
            for value in parameters(self.database_id, entry, is_marked=marks(entry))
        ]
        cursor = await self._connection.execute(_APPENDS[len(held) - 1], [*advance, *rows])
        if cursor.rowcount == 0:
            raise Fenced
        self._let_go(len(held))

    async def _append(self, advance: list[int | None], also: Sequence[Statement]) -> None:
        await self.flush()
        await self._end_copy()
        reach("log-written")
        await self._begin()
        cursor = await self._connection.execute(ADVANCE, advance)
        if cursor.rowcount != 1:
            await self._connection.rollback()
            raise Fenced
        await self._trust.save()
        for statement in also:
            await self._connection.execute(statement.query, statement.parameters)
        await self._connection.commit()

    def _advance(self, last_commit_lsn: int, confirmed_lsn: int | None) -> list[int | None]:
        return [
            self.next_position,
            last_commit_lsn,
            confirmed_lsn,
            self.database_id,
            self.epoch,
            self._stored_position,
        ]

    def _let_go(self, count: int) -> None:
        self._handed_over += count
        self._last_handed_over = self._entries[self._handed_over - 1]
        self._held_bytes = _size_bytes(self._entries[self._handed_over :])

    def forget(self) -> None:
        """Drop the entries kept for `commit` to return: a long append must not fill the memory."""
        note_moves(self._entries[: self._handed_over], self.forgotten)
        del self._entries[: self._handed_over]
        self._handed_over = 0
        self.kept_bytes = self._held_bytes

    async def _begin(self) -> None:
        if self._connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            await self._connection.execute("BEGIN")

    async def _end_copy(self) -> None:
        if self._copy is not None:
            stack, self._copy, self._stream = self._copy, None, None
            await stack.aclose()


def _size_bytes(entries: Sequence[Entry]) -> int:
    return sum(entry.size_bytes for entry in entries)
