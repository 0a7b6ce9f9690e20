"""`dev`'s side of its fork server: processes that are forked instead of started."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from triggerkit.supervisor.dev.forkserver import MAX_REQUEST_BYTES, Request


class Process(Protocol):
    """A process as `dev` uses it, forked or started."""

    @property
    def pid(self) -> int:
        """Its id, which is its process group's too."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, None while it runs."""

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        """Return what it prints, its standard error included."""

    async def wait(self) -> int:
        """Wait until it has ended; its exit code."""


class ForkedProcess:
    """A process of the fork server."""

    def __init__(self, pid: int, stdout: asyncio.StreamReader) -> None:
        self.pid = pid
        self.stdout: asyncio.StreamReader | None = stdout
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        """Wait until it has ended; its exit code."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def end(self, code: int) -> None:
        """Note that it has ended."""
        self.returncode = code
        self._ended.set()


class ForkServer:
    """A running fork server. Should it end, so do its processes, and `is_alive` says so."""

    def __init__(self) -> None:
        """Start it; what it imports takes a second, in which it can be asked already."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        with theirs:
            self._server = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "triggerkit.supervisor.dev.forkserver",
                    str(theirs.fileno()),
                ],
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._asked: deque[tuple[asyncio.Future[ForkedProcess], asyncio.StreamReader]] = deque()
        self._processes: dict[int, ForkedProcess] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_alive = True

    @classmethod
    def start(cls) -> ForkServer | None:
        """Start one, where there can be one."""
        return cls() if sys.platform == "linux" else None

    async def fork(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        pass_fds: Sequence[int],
        limit: int,
    ) -> ForkedProcess:
        """Have `triggerkit ARGUMENTS` forked, in a session of its own.

        Raises:
            ConnectionError: the fork server has ended.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            loop.add_reader(self._socket, self._hear)
        output, input_fd = os.pipe()
        reader = asyncio.StreamReader(limit)
        protocol = asyncio.StreamReaderProtocol(reader)
        await loop.connect_read_pipe(lambda: protocol, os.fdopen(output, "rb", 0))
        request = Request(arguments, str(folder), dict(environment), [1, *pass_fds])
        forked: asyncio.Future[ForkedProcess] = loop.create_future()
        self._asked.append((forked, reader))
        try:
            message = json.dumps(request._asdict()).encode()
            socket.send_fds(self._socket, [message], [input_fd, *pass_fds])
        except OSError:
            self._lose()
        finally:
            os.close(input_fd)
        return await forked

    def close(self) -> None:
        """End it, which may be importing still; its processes have ended before."""
        if self._loop is not None and self.is_alive:
            self._loop.remove_reader(self._socket)
        self._socket.close()
        self._server.kill()
        self._server.wait()

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while answer := self._receive():
                facts = json.loads(answer)
                if "pid" in facts:
                    forked, reader = self._asked.popleft()
                    process = ForkedProcess(facts["pid"], reader)
                    self._processes[process.pid] = process
                    if not forked.done():
                        forked.set_result(process)
                else:
                    self._processes.pop(facts["ended"]).end(facts["code"])
            self._lose()

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(MAX_REQUEST_BYTES)
        except ConnectionResetError:
            return b""

    def _lose(self) -> None:
        """It ended by itself: nobody would say when its processes do, so they end now."""
        self.is_alive = False
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.end(-signal.SIGKILL)
        self._processes.clear()
        for forked, _ in self._asked:
            if not forked.done():
                forked.set_exception(ConnectionError("the fork server has ended"))
        self._asked.clear()
