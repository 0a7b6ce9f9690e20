"""A connection in replication mode: frames in, status updates out."""

from __future__ import annotations

import asyncio
import time
from typing import Self

import psycopg
from psycopg import sql

from triggerkit.errors import SlotError
from triggerkit.lsn import Lsn
from triggerkit.replication.frames import StandbyStatusUpdate
from triggerkit.state.connect import connect

#: Frames are handed over in batches of about this many bytes.
BATCH_BYTES = 1024 * 1024

#: Seconds between 1970 and 2000, the epoch of the protocol's clocks.
EPOCH_S = 946_684_800

#: Seconds between two status updates when nothing else asks for one; well under the server's
#: `wal_sender_timeout`, 60 s by default.
STATUS_S = 10.0


class ReplicationConnection:
    """Streams one slot. `flushed` is the position confirmed to the server; it never goes back."""

    def __init__(self, connection: psycopg.AsyncConnection, slot_name: str) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._slot_name = slot_name
        self._loop = asyncio.get_running_loop()
        self.flushed = Lsn(0)

    @classmethod
    async def open(cls, dsn: str, slot_name: str, publication: str) -> Self:
        """Connect and start streaming from where the slot was confirmed.

        Raises:
            CannotConnect: the server does not answer.
            SlotError: the slot is missing, in use or lost.
        """
        connection = await connect(dsn, "triggerkit stream", replication=True)
        version = connection.info.server_version
        options = [
            sql.SQL("proto_version '1'"),
            sql.SQL("publication_names {}").format(
                sql.Literal(sql.Identifier(publication).as_string(connection))
            ),
        ]
        if version >= 140000:
            options.append(sql.SQL("messages 'true'"))
        command = sql.SQL("START_REPLICATION SLOT {} LOGICAL 0/0 ({})").format(
            sql.Identifier(slot_name), sql.SQL(", ").join(options)
        )
        try:
            await connection.execute(command)
        except psycopg.Error as error:
            await connection.close()
            raise _slot_error(error, slot_name) from error
        return cls(connection, slot_name)

    async def receive(self) -> list[memoryview]:
        """Wait for frames and return all that are here, at least one.

        Raises:
            psycopg.OperationalError: the connection broke.
            SlotError: the server ended the stream.
        """
        while True:
            frames = self._drain()
            if frames:
                return frames
            await self._readable()
            self._pgconn.consume_input()

    def confirm(self, lsn: Lsn) -> None:
        """Tell the server that everything before `lsn` is durable here."""
        if lsn > self.flushed:
            self.flushed = lsn
        self.send_status()

    def send_status(self) -> None:
        """Send what is confirmed: also the sign of life the server waits for."""
        now_us = int((time.time() - EPOCH_S) * 1_000_000)
        update = StandbyStatusUpdate(self.flushed, self.flushed, self.flushed, now_us)
        self._pgconn.put_copy_data(update.to_bytes())
        self._pgconn.flush()

    async def keep_alive(self) -> None:
        """Send a status regularly, until canceled."""
        while True:
            await asyncio.sleep(STATUS_S)
            self.send_status()

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    def _drain(self) -> list[memoryview]:
        frames: list[memoryview] = []
        size_bytes = 0
        get_copy_data = self._pgconn.get_copy_data
        while size_bytes < BATCH_BYTES:
            length, data = get_copy_data(1)
            if length == 0:
                break
            if length < 0:
                self._ended()
            frames.append(data)
            size_bytes += length
        return frames

    def _ended(self) -> None:
        result = self._pgconn.get_result()
        message = result.get_error_message() if result is not None else ""
        raise SlotError(f"the server ended the stream: {message.strip()}", self._slot_name)

    async def _readable(self) -> None:
        ready = self._loop.create_future()
        fd = self._pgconn.socket
        self._loop.add_reader(fd, _resolve, ready)
        try:
            await ready
        finally:
            self._loop.remove_reader(fd)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _slot_error(error: psycopg.Error, slot_name: str) -> SlotError:
    remedy = {
        "55006": "another process streams from it; stop that one, or wait until it ends",
        "42704": "it does not exist; `triggerkit check` says how to replace it",
        "55000": "it is lost: the server removed WAL it still needed; replace it and backfill",
    }.get(error.sqlstate or "", "see the server's message")
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return SlotError(f"replication slot {slot_name}: {first}; {remedy}", slot_name)
