"""A test's database and what capture reads of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from typing import Any

import orjson
import psycopg

from tests.capture.rig.server import Server
from triggerkit.change import RowChange
from triggerkit.lsn import Lsn
from triggerkit.replication import heartbeat, wal_marker
from triggerkit.replication.capture import Capture, TransactionPart
from triggerkit.replication.publication.ensure import ensure_publication
from triggerkit.replication.slot import source_server
from triggerkit.replication.slot.replication_slot import PUBLICATION, ensure_slot
from triggerkit.replication.versions import InMemory
from triggerkit.state.connect import connect

SLOT = "triggerkit_test"

#: The prefix of the markers by which a test knows that all before them was read.
END = "triggerkit.test.end"


class Source:
    """A database on a server, its publication and its slot."""

    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.version = server.version
        self.url = url
        self._connection = psycopg.connect(url, autocommit=True)
        self._ends = count()
        self._last_lsn = 0
        self.versions = InMemory()

    def reconnect(self) -> None:
        """Connect anew, after a restart of the server."""
        self.close()
        self._connection = psycopg.connect(self.url, autocommit=True)

    def close(self) -> None:
        """Close the connection of the test's own statements."""
        self._connection.close()

    def execute(self, *statements: str) -> None:
        """Run statements, each its own transaction; several in one string are one."""
        for statement in statements:
            self._connection.execute(statement.encode())

    def copy(self, table: str, rows: str) -> None:
        """COPY `rows`, in the text format, into a table."""
        with self._connection.cursor().copy(f"COPY {table} FROM STDIN".encode()) as copy:
            copy.write(rows)

    def value(self, query: str) -> Any:
        """The first column of a query's first row."""
        row = self._connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]

    def follow(self, *tables: str) -> None:
        """Make publication and slot, as `apply` does: changes from now on are captured."""

        async def make() -> None:
            async with await connect(self.url, "test") as connection:
                names = [("public", table) for table in tables]
                await ensure_publication(connection, PUBLICATION, names)
                await ensure_slot(connection, SLOT)

        asyncio.run(make())

    def parts(self) -> list[TransactionPart]:
        """What was captured since the last call, which is confirmed."""

        async def read() -> list[TransactionPart]:
            async with self.capture() as capture:
                return await self.read_all(capture)

        return asyncio.run(read())

    def changes(self) -> list[RowChange]:
        """The changes that were captured since the last call."""
        return [change for part in self.parts() for change in part.changes]

    @asynccontextmanager
    async def capture(self, known: source_server.Server | None = None) -> AsyncIterator[Capture]:
        """A capture of the slot; `known` is the server that was captured from before.

        After it the server has taken in what was confirmed, and the slot is free.
        """
        async with Capture.open(
            self.url, SLOT, PUBLICATION, self._last_lsn, known, self.versions
        ) as capture:
            yield capture
        active = f"SELECT bool_or(active) FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
        while self.value(active):  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.005)

    async def read_all(self, capture: Capture) -> list[TransactionPart]:
        """Read and confirm until all that was committed before this call is read."""
        end = str(next(self._ends))
        async with await connect(self.url, "test") as connection:
            await wal_marker.emit(connection, END, end)
        found: list[TransactionPart] = []
        async with asyncio.timeout(60):
            while True:
                for part in await capture.read():
                    if part.end_lsn is not None:
                        self._last_lsn = part.transaction.commit_lsn
                        capture.confirm(part.end_lsn)
                    if any(m.prefix == END and m.content == end.encode() for m in part.messages):
                        return found
                    if not is_heartbeat(part):
                        found.append(part)

    def forget(self) -> None:
        """Do not know any more what was read: only the slot knows."""
        self._last_lsn = 0

    def remember(self, part: TransactionPart) -> None:
        """Know of the transaction as of the last that is in the log."""
        self._last_lsn = part.transaction.commit_lsn

    @contextmanager
    def beside(self) -> Iterator[psycopg.Connection]:
        """A connection to another database of the server."""
        with psycopg.connect(self.server.new_database(), autocommit=True) as connection:
            yield connection

    def confirmed_lsn(self) -> Lsn:
        """What the slot has confirmed."""
        return Lsn.parse(
            self.value(
                "SELECT confirmed_flush_lsn::text FROM pg_replication_slots "
                f"WHERE slot_name = '{SLOT}'"
            )
        )


def is_heartbeat(part: TransactionPart) -> bool:
    """Whether a part is only the return of the stream's own marker."""
    return not part.changes and [m.prefix for m in part.messages] == [heartbeat.PREFIX]


def as_json(change: RowChange) -> Any:
    """The change's record as a consumer's JSON reader sees it."""
    return orjson.loads(orjson.dumps(change.record))
