"""A connection in replication mode: frames in, status updates out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Self

import psycopg
from psycopg import sql
from psycopg.pq import DiagnosticField

from triggerkit.errors import CannotConnect, Fenced
from triggerkit.lsn import Lsn
from triggerkit.replication.codec.frames import StandbyStatusUpdate
from triggerkit.replication.slot import remedies, source_server
from triggerkit.replication.wal_marker import MESSAGES_FROM
from triggerkit.state.connect import connect

#: Frames are handed over in batches of about this many bytes.
BATCH_BYTES = 1024 * 1024

#: Seconds between 1970 and 2000, the epoch of the protocol's clocks.
EPOCH_S = 946_684_800

#: Seconds between two status updates when nothing else asks for one; well under the server's
#: `wal_sender_timeout`, 60 s by default.
STATUS_S = 10.0

#: Seconds without a word from the server, though it was asked for one, after which the line is
#: taken for dead. A server that gives us longer (`wal_sender_timeout`) gets as long itself.
SILENCE_S = 60.0

#: The same where the server has no such limit.
LONGEST_SILENCE_S = 600.0

_TIMEOUT = "SELECT setting::int / 1000.0 FROM pg_settings WHERE name = 'wal_sender_timeout'"

#: Seconds without a status update after which the server lets go of the slot, at most: it is what
#: whoever comes after us waits for, once our connection is taken for dead.
LET_GO_S = 30.0

#: What the server sends may stay unread for as long as the log takes to write: no limit for that.
_LET_GO = (
    "SELECT set_config('tcp_user_timeout', '0', false), set_config('wal_sender_timeout', {}, false)"
)

_CONFIRMED = """
SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = {}
"""


class LineDead(psycopg.OperationalError):
    """The connection is open, but no data comes through it."""


@asynccontextmanager
async def answering() -> AsyncIterator[None]:
    """Bounds how long the server may take for what it does at once when it is well.

    Raises:
        LineDead: it did not answer.
    """
    try:
        async with asyncio.timeout(SILENCE_S):
            yield
    except TimeoutError as error:
        raise LineDead(f"the server has not answered for {SILENCE_S:g} s") from error


class ReplicationConnection:
    """Streams one slot. `flushed` is the position confirmed to the server; it never goes back.

    `confirmed_before` is what the slot had confirmed when the stream began.
    """

    def __init__(
        self,
        connection: psycopg.AsyncConnection,
        slot_name: str,
        publication: str,
        server: source_server.Server,
        patience_s: float,
        confirmed_before: Lsn,
    ) -> None:
        self._connection = connection
        self._patience_s = patience_s
        self._publication = publication
        self._failure: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._waiting_since = 0.0
        self._pgconn = connection.pgconn
        self._slot_name = slot_name
        self._loop = asyncio.get_running_loop()
        self.server = server
        self.flushed = Lsn(0)
        self.confirmed_before = confirmed_before
        self._empty_until = Lsn(0)
        self._is_asked = asyncio.Event()
        connection.add_notice_handler(self._on_notice)

    @classmethod
    async def open(
        cls,
        dsn: str,
        slot_name: str,
        publication: str,
        known: source_server.Server | None = None,
        after: int = 0,
    ) -> Self:
        """Connect and start streaming from where the slot was confirmed.

        `known` is the server that was streamed from up to the LSN `after`.

        Raises:
            CannotConnect: the server does not answer.
            SlotError: the slot is missing, in use or lost, the role may not stream, or the server
                is another one or lacks what the one before it had.
        """
        try:
            connection = await connect(dsn, "triggerkit stream", replication=True)
        except CannotConnect as error:
            raise await remedies.not_allowed(error, dsn, slot_name) from error
        try:
            server = await source_server.require_same(connection, known, after, slot_name)
            return await cls._start(connection, slot_name, publication, server)
        except psycopg.Error as error:
            refusal = await remedies.refused(connection, error, slot_name)
            await connection.close()
            raise refusal from error
        except BaseException:
            await connection.close()
            raise

    @classmethod
    async def _start(
        cls,
        connection: psycopg.AsyncConnection,
        slot_name: str,
        publication: str,
        server: source_server.Server,
    ) -> Self:
        options = [
            sql.SQL("proto_version '1'"),
            sql.SQL("publication_names {}").format(
                sql.Literal(sql.Identifier(publication).as_string(connection))
            ),
        ]
        if connection.info.server_version >= MESSAGES_FROM:
            options.append(sql.SQL("messages 'true'"))
        command = sql.SQL("START_REPLICATION SLOT {} LOGICAL 0/0 ({})").format(
            sql.Identifier(slot_name), sql.SQL(", ").join(options)
        )
        cursor = await connection.execute(_TIMEOUT)
        [limit_s] = await cursor.fetchone() or [0]
        cursor = await connection.execute(sql.SQL(_CONFIRMED).format(slot_name))
        [confirmed] = await cursor.fetchone() or [0]
        let_go_s = min(float(limit_s) or LET_GO_S, LET_GO_S)
        await connection.execute(sql.SQL(_LET_GO).format(f"{int(let_go_s * 1000)}ms"))
        start = command.as_bytes(connection)
        if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
            # Such a database holds any bytes. Asked for UTF-8, the server would end the stream of
            # all tables at the first value that is none; as it is, that row alone has a fault.
            await connection.execute("SET client_encoding = 'SQL_ASCII'")
        await connection.execute(start)
        patience_s = max(SILENCE_S, float(limit_s)) if limit_s else LONGEST_SILENCE_S
        return cls(connection, slot_name, publication, server, patience_s, Lsn(int(confirmed or 0)))

    async def receive(self) -> list[memoryview]:
        """Wait for frames and return all that are here, at least one.

        Raises:
            psycopg.OperationalError: the connection broke, or is silent (`LineDead`).
            SlotError: the server ended the stream.
        """
        self._pgconn.consume_input()
        frames = self._drain()
        while not frames:
            await self._readable()
            self._pgconn.consume_input()
            frames = self._drain()
        # One read of libpq's is 16 KB: what the socket has beside it is read too.
        size_bytes = sum(map(len, frames))
        while size_bytes < BATCH_BYTES:
            self._pgconn.consume_input()
            more = self._drain()
            if not more:
                break
            frames += more
            size_bytes += sum(map(len, more))
        return frames

    @property
    def is_waiting(self) -> bool:
        """Return whether `receive` waits for the server."""
        return self._waiting is not None

    def fail(self, error: Exception) -> None:
        """Have `receive` raise `error`, now or when it is called next."""
        self._failure = error
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

    def confirm(self, lsn: Lsn) -> None:
        """Tell the server that everything before `lsn` is durable here."""
        if lsn > self.flushed:
            self.flushed = lsn
        self.send_status()

    def pass_over(self, lsn: Lsn) -> None:
        """Note that nothing before `lsn` is missing here; the server is told of it in time."""
        self._empty_until = max(self._empty_until, lsn)

    def answer(self) -> None:
        """Send the status that the server asked for, and then another with what was passed over."""
        self.send_status()
        self._is_asked.set()

    async def confirm_passed_over(self, remember: Callable[[Lsn], Awaitable[None]]) -> None:
        """Confirm regularly what was passed over, until canceled; `remember` is awaited before.

        Not confirming it would make the server keep what others write for ever, and wait for it
        when it is to stop.
        """
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(STATUS_S):
                    await self._is_asked.wait()
            self._is_asked.clear()
            lsn = self._empty_until
            # A state that is away, or a connection that broke, is told of by others.
            with suppress(psycopg.Error, Fenced):
                if lsn > self.flushed:
                    await remember(lsn)
                    self.confirm(lsn)

    def send_status(self, *, reply_requested: bool = False) -> None:
        """Send what is confirmed: also the sign of life the server waits for."""
        now_us = int((time.time() - EPOCH_S) * 1_000_000)
        flushed = self.flushed
        update = StandbyStatusUpdate(flushed, flushed, flushed, now_us, reply_requested)
        self._pgconn.put_copy_data(update.to_bytes())
        self._pgconn.flush()

    async def keep_alive(self) -> None:
        """Send a status regularly, until canceled; ask a silent server for a word, and give up.

        Only the time in which `receive` waits counts: while the log is written, nobody listens.
        """
        # A connection that broke is told of by `receive`.
        with suppress(psycopg.OperationalError):
            while True:
                await asyncio.sleep(STATUS_S)
                since = self._waiting_since if self.is_waiting else self._loop.time()
                silent_s = self._loop.time() - since
                if silent_s >= self._patience_s:
                    self.fail(LineDead(f"nothing came from the server for {silent_s:.0f} s"))
                self.send_status(reply_requested=silent_s >= STATUS_S)

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
        if self._failure is not None:
            # With what came after a notice, or it might be confirmed.
            raise self._failure
        return frames

    def _ended(self) -> None:
        result = self._pgconn.get_result()
        if result is None:
            raise remedies.ended("", None, self._slot_name, self._publication)
        state = result.error_field(DiagnosticField.SQLSTATE)
        raise remedies.ended(
            result.get_error_message(),
            None if state is None else state.decode(),
            self._slot_name,
            self._publication,
        )

    def _on_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        # From 18 on a stream is not ended when its publication is missing: the changes are left
        # out, and this is all that is said of it.
        if notice.sqlstate == "55000":
            self.fail(remedies.without_publication(self._slot_name, self._publication))

    async def _readable(self) -> None:
        ready = self._waiting = self._loop.create_future()
        self._waiting_since = self._loop.time()
        fd = self._pgconn.socket
        self._loop.add_reader(fd, _resolve, ready)
        try:
            await ready
        finally:
            self._waiting = None
            self._loop.remove_reader(fd)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
