"""A process that runs code of the project for the stream, and can be ended: both of its ends.

What goes through its pipes is frames: four bytes of length, a byte that says what it is, and the
content. What the project's code prints goes to standard error.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
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

#: Bytes that a pipe's reader takes in before it lets the writer wait.
_READ_AHEAD = 1024 * 1024

LENGTH = struct.Struct("!I")


class Process(NamedTuple):
    """The process, as the stream has it."""

    process: asyncio.subprocess.Process
    lifeline: Lifeline

    @classmethod
    async def start(cls, module: str, what: str, **setting: Any) -> Self:
        """Run `module`, whose code is told `setting`; `what` names what it loads.

        Raises:
            ConfigurationError: what it needs cannot be loaded.
        """
        line = hold()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_READ_AHEAD,
                env={**os.environ, **line.environment()},
                pass_fds=[line.read_fd],
                # Ended by us alone: not by what a terminal sends to all.
                start_new_session=True,
            )
        except BaseException:
            line.close()
            raise
        line.close_read()
        started = cls(process, line)
        try:
            await started._load(what, {"path": sys.path, "own": own_modules(), **setting})
        except BaseException:
            await started.reap()
            raise
        return started

    async def reap(self) -> None:
        """End it at once."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                # Not by `kill()`: it looks first whether the process has ended, and takes its
                # status away from the loop, which waits for it.
                os.kill(self.process.pid, signal.SIGKILL)
        self.lifeline.close()
        await self.process.wait()

    def write(self, kind: bytes, content: bytes) -> None:
        """Send a request; what the pipe does not hold is kept."""
        assert self.process.stdin is not None
        self.process.stdin.write(frame(kind, content))

    async def read(self) -> tuple[bytes, bytes]:
        """Return the next answer.

        Raises:
            asyncio.IncompleteReadError, OSError: the process has ended.
        """
        assert self.process.stdout is not None
        (size,) = LENGTH.unpack(await self.process.stdout.readexactly(LENGTH.size))
        answer = await self.process.stdout.readexactly(size)
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


#: Answers a request, of which it gets the kind and the content, by the same of the answer.
Answering = Callable[[bytes, bytes], tuple[bytes, bytes]]


def frame(kind: bytes, content: bytes = b"") -> bytes:
    """Return a frame as it goes through a pipe."""
    return LENGTH.pack(len(content) + 1) + kind + content


def answer_requests(load: Callable[[dict[str, Any]], Answering]) -> None:
    """Answer requests until there are none any more, in the process; `load` is called first, with
    the setting."""
    lifeline.watch()
    # The project's code reads and writes nothing of ours.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
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
        _answer(answers, *answer(kind, content))


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
