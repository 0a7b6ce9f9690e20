"""The one writer of a database's log: appends by COPY, in commit order, fenced by its epoch."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple, Self

import psycopg
from psycopg import sql

from triggerkit.errors import Fenced
from triggerkit.failpoints import reach
from triggerkit.log.entry import COPY_COLUMNS, Entry, Pending, copy_row, entry_of
from triggerkit.state.connect import connect

#: Positions a partition of the table `events` holds; retention drops whole partitions.
TABLE_PARTITION_SIZE = 500_000

#: COPY data is handed to the server in pieces of about this many bytes.
COPY_CHUNK_BYTES = 256 * 1024

#: Takes over the log: from now on the previous writer is refused.
_OPEN = """
UPDATE triggerkit.databases SET writer_epoch = writer_epoch + 1 WHERE id = %s
RETURNING writer_epoch, next_position, last_commit_lsn
"""

_COPY = f"COPY triggerkit.events ({COPY_COLUMNS}) FROM STDIN"

#: Moves the log's head. No row comes back when another writer took over.
_ADVANCE = """
UPDATE triggerkit.databases SET next_position = %s, last_commit_lsn = greatest(last_commit_lsn, %s)
WHERE id = %s AND writer_epoch = %s AND next_position = %s
"""


class Statement(NamedTuple):
    """A statement that must be committed together with an append."""

    query: str
    parameters: Sequence[Any]


class LogWriter:
    """Appends to the log of one database, over a connection of its own.

    Guarantee: when `commit` returns, what was written is durable, at consecutive positions, in
    the order of `write`. An append that raises has left nothing. At most one append at a time.
    """

    def __init__(self, connection: psycopg.AsyncConnection, database_id: int) -> None:
        self._connection = connection
        self._database_id = database_id
        self._epoch = 0
        self._stored_position = 1
        self._tables_until = 0
        self._copy: AsyncExitStack | None = None
        self._stream: psycopg.AsyncCopy | None = None
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._entries: list[Entry] = []
        #: The bytes of what `commit` is going to return.
        self.kept_bytes = 0
        self.next_position = 1
        self.last_commit_lsn = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str, database_id: int) -> AsyncIterator[Self]:
        """Become the writer of this database's log. What was not committed at the end is gone.

        Raises:
            CannotConnect: the state database does not answer.
        """
        connection = await connect(dsn, "triggerkit log")
        writer = cls(connection, database_id)
        try:
            await writer._take_over()
            yield writer
        finally:
            # Closed as it is: an interrupted COPY holds the connection, and waiting for it here
            # would be for ever.
            await connection.close()
            with contextlib.suppress(psycopg.Error):
                await writer._end_copy()

    async def _take_over(self) -> None:
        cursor = await self._connection.execute(_OPEN, [self._database_id])
        row = await cursor.fetchone()
        if row is None:
            raise Fenced(f"database {self._database_id} is gone from triggerkit.databases")
        self._epoch, self.next_position, self.last_commit_lsn = row
        self._stored_position = self.next_position
        await self._make_tables(self.next_position)

    def write(self, pending: Pending) -> int:
        """Add one change to the append and return the bytes now held in memory."""
        entry = entry_of(self.next_position, pending)
        self.next_position += 1
        head, record, tail = copy_row(self._database_id, entry)
        self._buffer += head, record, tail
        size_bytes = len(head) + len(record) + len(tail)
        self._buffered_bytes += size_bytes
        self.kept_bytes += size_bytes
        self._entries.append(entry)
        return self._buffered_bytes

    async def flush(self) -> None:
        """Hand what is held in memory to the server, not yet committed."""
        if not self._buffer:
            return
        if self.next_position > self._tables_until:
            await self._end_copy()
            await self._begin()
            await self._make_tables(self.next_position)
        if self._stream is None:
            await self._begin()
            stack = AsyncExitStack()
            cursor = await stack.enter_async_context(self._connection.cursor())
            self._stream = await stack.enter_async_context(cursor.copy(_COPY))
            self._copy = stack
        await self._stream.write(b"".join(self._buffer))
        self._buffer.clear()
        self._buffered_bytes = 0

    async def commit(self, last_commit_lsn: int, also: Sequence[Statement] = ()) -> list[Entry]:
        """Make the append durable, together with the statements in `also`.

        Returns the entries written since the last commit, except those dropped by `forget`.

        Raises:
            Fenced: another writer took over; nothing of this append was kept.
        """
        await self.flush()
        await self._end_copy()
        reach("log-written")
        await self._begin()
        cursor = await self._connection.execute(
            _ADVANCE,
            [
                self.next_position,
                last_commit_lsn,
                self._database_id,
                self._epoch,
                self._stored_position,
            ],
        )
        if cursor.rowcount != 1:
            await self._connection.rollback()
            raise Fenced
        for statement in also:
            await self._connection.execute(statement.query, statement.parameters)
        await self._connection.commit()
        reach("log-committed")
        self._stored_position = self.next_position
        self.last_commit_lsn = max(self.last_commit_lsn, last_commit_lsn)
        entries, self._entries = self._entries, []
        self.kept_bytes = 0
        return entries

    def forget(self) -> None:
        """Drop the entries kept for `commit` to return: a long append must not fill the memory."""
        self._entries.clear()
        self.kept_bytes = 0

    async def _begin(self) -> None:
        if self._connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            await self._connection.execute("BEGIN")

    async def _end_copy(self) -> None:
        if self._copy is not None:
            stack, self._copy, self._stream = self._copy, None, None
            await stack.aclose()

    async def _make_tables(self, position: int) -> None:
        """Make the table partitions for `position` and for one whole partition after it."""
        first = position // TABLE_PARTITION_SIZE
        for number in (first, first + 1):
            bounds = number * TABLE_PARTITION_SIZE, (number + 1) * TABLE_PARTITION_SIZE
            await self._connection.execute(
                sql.SQL(
                    "CREATE TABLE IF NOT EXISTS triggerkit.{} PARTITION OF triggerkit.events "
                    "FOR VALUES FROM ({}) TO ({})"
                ).format(sql.Identifier(f"events_{number}"), *map(sql.Literal, bounds))
            )
            self._tables_until = bounds[1]
