"""A process that runs code of the project for the stream, and can be ended: both of its ends.

What goes through the socket between them is frames: four bytes of length, a byte that says what it
is, and the content. What the project's code prints goes to standard error.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import orjson

from triggerkit import lifeline
from triggerkit.errors import ConfigurationError
from triggerkit.lifeline import Lifeline, hold
from triggerkit.project import call_own, own_modules

#: What a request is.
MESSAGE = b"M"

#: What the first answer is: ready, cannot be loaded.
READY, BROKEN = b"R", b"B"

#: A fault for want of memory, which what took it may hold for good: the process is replaced.
SPENT = b"E"

#: Memory that the project's code may take beside what it took as it was imported.
MOST_BYTES = 1024 * 1024 * 1024

#: Seconds that importing the project's modules may take.
LOAD_S = 30.0

#: Bytes that are taken in before the writer is let wait.
_READ_AHEAD = 1024 * 1024

LENGTH = struct.Struct("!I")


class Process(NamedTuple):
    """The process, as the stream has it."""

    process: subprocess.Popen[bytes]
    lifeline: Lifeline
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def start(cls, module: str, what: str, **setting: Any) -> Self:
        """Run `module`, whose code is told `setting`; `what` names what it loads.

        Raises:
            ConfigurationError: what it needs cannot be loaded.
        """
        # A socket of ours and not asyncio's pipes: its processes are only over once all pipes are,
        # which one that nobody reads, or that another process has, never is.
        ours, theirs = socket.socketpair()
        line = hold()
        with theirs:
            try:
                reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_READ_AHEAD)
                process = _begun(module, line, theirs)
            except BaseException:
                ours.close()
                line.close()
                raise
        line.close_read()
        started = cls(process, line, reader, writer)
        try:
            await started._load(what, {"path": sys.path, "own": own_modules(), **setting})
        except BaseException:
            await started.reap()
            raise
        return started

    async def reap(self) -> None:
        """End it at once, and what it started."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.lifeline.close()
        self.writer.transport.abort()
        await asyncio.to_thread(self.process.wait)

    def write(self, kind: bytes, content: bytes) -> None:
        """Send a request; what the socket does not hold is kept."""
        self.writer.write(frame(kind, content))

    async def read(self) -> tuple[bytes, bytes]:
        """Return the next answer.

        Raises:
            asyncio.IncompleteReadError, OSError: the process has ended.
        """
        (size,) = LENGTH.unpack(await self.reader.readexactly(LENGTH.size))
        answer = await self.reader.readexactly(size)
        return answer[:1], answer[1:]

    async def _load(self, what: str, setting: dict[str, Any]) -> None:
        try:
            self.write(MESSAGE, orjson.dumps(setting))
            async with asyncio.timeout(LOAD_S):
                kind, content = await self.read()
        except TimeoutError:
            raise ConfigurationError(f"{what}: cannot be loaded within {LOAD_S:g} s") from None
        except (asyncio.IncompleteReadError, OSError):
            raise ConfigurationError(
                f"{what}: cannot be loaded: what it imports ended the process"
            ) from None
        if kind == BROKEN:
            raise ConfigurationError(content.decode())


def _begun(module: str, line: Lifeline, theirs: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=theirs.fileno(),
        stdout=theirs.fileno(),
        env={**os.environ, **line.environment()},
        pass_fds=[line.read_fd],
        # Ended by us alone, with all it started: not by what a terminal sends to all.
        start_new_session=True,
    )


#: Answers a request, of which it gets the kind and the content, by the same of the answer.
Answering = Callable[[bytes, bytes], tuple[bytes, bytes]]


def frame(kind: bytes, content: bytes = b"") -> bytes:
    """Return a frame as it goes through the socket."""
    return LENGTH.pack(len(content) + 1) + kind + content


def answer_requests(load: Callable[[dict[str, Any]], Answering]) -> None:
    """Answer requests until there are none any more, in the process; `load` is called first, with
    the setting."""
    lifeline.watch()
    # The project's code reads and writes nothing of ours.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    own_pid = os.getpid()
    # As long as another has the socket, nobody sees that this process has ended.
    os.register_at_fork(after_in_child=partial(_close, requests.fileno(), answers.fileno()))
    asked = _requests(requests)
    setting = orjson.loads(next(asked)[1])
    sys.path[:] = setting["path"]
    call_own(setting["own"])
    try:
        answer = load(setting)
    except ConfigurationError as error:
        _answer(answers, BROKEN, str(error).encode())
        return
    _limit_memory()
    _answer(answers, READY)
    for kind, content in asked:
        answered = answer(kind, content)
        if os.getpid() != own_pid:
            # A copy of this process, which the project's code made.
            os._exit(0)
        _answer(answers, *answered)


def _close(*fds: int) -> None:
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


def _limit_memory() -> None:
    """Have what takes too much fail here, before it takes what the machine has."""
    with suppress(OSError, ValueError):  # a lower limit holds already, or the system has none
        status = Path("/proc/self/status").read_text()
        [taken] = [line.split()[1] for line in status.splitlines() if line.startswith("VmData:")]
        limit = int(taken) * 1024 + MOST_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _requests(requests: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    while len(length := requests.read(LENGTH.size)) == LENGTH.size:
        request = requests.read(LENGTH.unpack(length)[0])
        yield request[:1], request[1:]


def _answer(answers: BinaryIO, kind: bytes, content: bytes = b"") -> None:
    answers.write(frame(kind, content))
    answers.flush()
