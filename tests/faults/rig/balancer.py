"""A small load balancer: sends each connection to a `serve` that says it is ready."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from contextlib import suppress
from typing import Any, NamedTuple, Self

from tests.servers import Background

#: Seconds between two looks at a server's readiness, and that each may take.
LOOK_S = 0.1
LOOK_TIMEOUT_S = 2.0


class Balancer:
    """Takes connections on `port`. One that cannot be made to a server is made to another."""

    def __init__(self) -> None:
        self._background = Background()
        self._ready: dict[int, bool] = {}
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def __enter__(self) -> Self:
        self._background.run(self._start())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._background.run(self._stop())

    def add(self, port: int) -> None:
        """Send to the server on `port`, too, once it is ready."""
        self._ready[port] = False

    def remove(self, port: int) -> None:
        """Forget the server on `port`."""
        self._ready.pop(port, None)

    def is_ready(self, port: int) -> bool:
        """Whether the server on `port` gets connections."""
        return self._ready.get(port, False)

    async def _start(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._server = server
        self._looking = asyncio.create_task(self._look())

    async def _stop(self) -> None:
        self._looking.cancel()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            for port in list(self._ready):
                is_ready = await _says_ready(port)
                if port in self._ready:
                    self._ready[port] = is_ready
            await asyncio.sleep(LOOK_S)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError):
            found = await self._connect()
            if found is None:
                writer.write(
                    b"HTTP/1.1 503 Nobody\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
            else:
                await asyncio.gather(_pass(reader, found[1]), _pass(found[0], writer))
        writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        ports = sorted(port for port, is_ready in self._ready.items() if is_ready)
        self._turn += 1
        for number in range(len(ports)):
            port = ports[(self._turn + number) % len(ports)]
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                if port in self._ready:
                    self._ready[port] = False
        return None


async def _says_ready(port: int) -> bool:
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(
                    b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
                )
                return (await reader.readline()).startswith(b"HTTP/1.1 200")
            finally:
                writer.close()
    return False


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


class Refusal(NamedTuple):
    """A request that was not answered as it should be, and when (monotonic seconds)."""

    at_s: float
    what: str


class Visitor:
    """Asks for a page over and over, each time by a new connection, and notes what goes wrong."""

    def __init__(
        self, port: int, path: str, headers: dict[str, str], every_s: float = 0.02
    ) -> None:
        self._port = port
        self._path = path
        self._headers = headers
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.asked = 0
        self.refusals: list[Refusal] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def since(self, at_s: float) -> list[Refusal]:
        """What went wrong after this moment."""
        return [refusal for refusal in self.refusals if refusal.at_s >= at_s]

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            began = time.monotonic()
            what = self._ask()
            self.asked += 1
            if what is not None:
                self.refusals.append(Refusal(began, what))

    def _ask(self) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("GET", self._path, headers=self._headers)
            answer = connection.getresponse()
            answer.read()
            return None if answer.status == 200 else f"answered {answer.status}"
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        finally:
            connection.close()
