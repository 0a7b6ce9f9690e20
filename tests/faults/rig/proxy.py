"""A TCP proxy before a server, which can stop forwarding without closing anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

#: Bytes forwarded at once.
PIECE_BYTES = 64 * 1024

#: The same of a slow line.
SLOW_PIECE = 8 * 1024


class Proxy:
    """Forwards both ways until it is cut; then all is taken and nothing comes through or ends."""

    def __init__(self, socket: Path | int) -> None:
        self._socket = socket
        #: Bytes a second that come through, of each direction; None is all.
        self.rate: float | None = None
        self._forwarding = asyncio.Event()
        self._forwarding.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._forwarded = asyncio.Condition()
        self._pieces = 0
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def start(cls, dsn: str) -> AsyncIterator[Self]:
        """A proxy before the server that `dsn` reaches by a Unix socket."""
        parts = conninfo_to_dict(dsn)
        async with cls.before(
            Path(str(parts["host"])) / f".s.PGSQL.{parts.get('port', 5432)}"
        ) as proxy:
            yield proxy

    @classmethod
    @asynccontextmanager
    async def before(cls, socket: Path | int) -> AsyncIterator[Self]:
        """A proxy before the server that listens at `socket`, or at a port of the loopback."""
        proxy = cls(socket)
        server = await asyncio.start_server(proxy._connected, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            for task in proxy._tasks:
                task.cancel()
            await asyncio.gather(*proxy._tasks, return_exceptions=True)

    def dsn(self, dsn: str, **more: str) -> str:
        """`dsn`, but through the proxy."""
        return make_conninfo(dsn, host="127.0.0.1", port=self.port, **more)

    def lead_to(self, socket: Path | int) -> None:
        """Take new connections to another server; those there are stay where they are."""
        self._socket = socket

    def cut(self) -> None:
        """Forward nothing more of the connections there are; new ones are forwarded."""
        self._forwarding.clear()
        self._forwarding = asyncio.Event()
        self._forwarding.set()

    async def until_forwarded(self, pieces: int) -> None:
        """Wait until so many more pieces came through, of either direction."""
        wanted = self._pieces + pieces
        async with self._forwarded:
            await self._forwarded.wait_for(lambda: self._pieces >= wanted)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        forwarding = self._forwarding
        with suppress(OSError, asyncio.CancelledError):
            there, back = await self._opened()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._forward(reader, back, forwarding))
                    group.create_task(self._forward(there, writer, forwarding))
            finally:
                writer.close()
                back.close()

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._socket, int):
            return await asyncio.open_connection("127.0.0.1", self._socket)
        return await asyncio.open_unix_connection(str(self._socket))

    def end_all(self) -> None:
        """End the connections there are, as a machine does that goes away with a word."""
        for task in self._tasks:
            task.cancel()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        forwarding: asyncio.Event,
    ) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE_BYTES if self.rate is None else SLOW_PIECE):
                if self.rate is not None:
                    await asyncio.sleep(len(piece) / self.rate)
                # Looked at after the read: what is read while cut is lost, as on a dead line.
                await forwarding.wait()
                writer.write(piece)
                await writer.drain()
                async with self._forwarded:
                    self._pieces += 1
                    self._forwarded.notify_all()
        await forwarding.wait()
        writer.close()
