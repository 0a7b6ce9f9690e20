"""The heartbeat: markers sent through the WAL, whose return proves that the stream is alive."""

from __future__ import annotations

import asyncio
import logging
from secrets import token_hex

import psycopg

from triggerkit.errors import CannotConnect
from triggerkit.replication import wal_marker
from triggerkit.replication.codec.messages import LogicalMessage
from triggerkit.replication.connection import LineDead, ReplicationConnection
from triggerkit.state.connect import connect

logger = logging.getLogger(__name__)

#: The prefix of a heartbeat's marker.
PREFIX = "triggerkit.heartbeat"

#: Seconds between two heartbeats.
EVERY_S = 15.0

#: Seconds that a heartbeat may be missing while the server's place in the WAL does not come nearer
#: to it. A server that works off a backlog, or a long transaction, does come nearer.
PATIENCE_S = 180.0

_END = "SELECT pg_current_wal_insert_lsn() - '0/0'"


class Heartbeat:
    """Sends a marker every `EVERY_S`, and breaks the connection when one does not come back."""

    def __init__(self, dsn: str, connection: ReplicationConnection) -> None:
        self._dsn = dsn
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._token = token_hex(4).encode()
        self._sent_at: float | None = None
        self._sent_lsn = 0
        self._reached = 0
        self._nearer_at = 0.0

    async def run(self) -> None:
        """Send and expect, until canceled; a heartbeat that cannot be sent is told of once."""
        has_warned = False
        while True:
            try:
                async with await connect(self._dsn, "triggerkit heartbeat") as connection:
                    while True:
                        await self._send(connection)
                        has_warned = False
                        await asyncio.sleep(EVERY_S)
                        self._expect()
            except (psycopg.Error, CannotConnect) as error:
                if not has_warned:
                    first = str(error).strip().partition("\n")[0]
                    logger.warning("cannot send the stream's heartbeat: %s", first)
                has_warned = True
            await asyncio.sleep(EVERY_S)

    def reached(self, lsn: int) -> None:
        """Note that the server told of the place `lsn` in the WAL."""
        if lsn > self._reached:
            self._reached = lsn
            if lsn <= self._sent_lsn:
                self._nearer_at = self._loop.time()

    def is_back(self, marker: LogicalMessage) -> bool:
        """Return whether `marker` is a heartbeat of this connection's."""
        if marker.prefix != PREFIX or marker.content != self._token:
            return False
        self._sent_at = None
        return True

    async def _send(self, connection: psycopg.AsyncConnection) -> None:
        if self._sent_at is not None:
            return
        self._sent_at = self._nearer_at = self._loop.time()
        # Before where it will be, until it is known: it may be back before the statement is.
        self._sent_lsn = self._reached
        try:
            await wal_marker.emit(connection, PREFIX, self._token.decode())
            cursor = await connection.execute(_END)
            row = await cursor.fetchone()
        except psycopg.Error:
            self._sent_at = None
            raise
        assert row is not None
        self._sent_lsn = int(row[0])

    def _expect(self) -> None:
        now = self._loop.time()
        if not self._connection.is_waiting:
            # What came is being written: it may be among what was not read yet.
            self._nearer_at = now
        if self._sent_at is None or now - self._nearer_at < PATIENCE_S:
            return
        missing_s = now - self._sent_at
        self._connection.fail(
            LineDead(f"a heartbeat has not come back through the WAL for {missing_s:.0f} s")
        )
