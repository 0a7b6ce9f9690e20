"""One process of a child: how it is started, told to go on, and ended with all it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from triggerkit.embedded.lifeline import Lifeline
from triggerkit.supervisor.logs import FORMAT_VARIABLE
from triggerkit.supervisor.standby import GO
from triggerkit.supervisor.standby import VARIABLE as STANDBY_VARIABLE

#: Longest line of a child's log, in bytes.
MAX_LINE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Command:
    """How a child is started. One that does not announce itself is ready at once."""

    name: str
    arguments: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    lifeline: Lifeline
    pass_fds: Sequence[int] = ()
    announces: bool = True

    async def start(self, *, on_standby: bool = False) -> asyncio.subprocess.Process:
        """Start it, in a session of its own: a Ctrl-C is for `dev`, which drains in order."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *self.arguments,
            cwd=self.folder,
            env={
                **self.environment,
                **self.lifeline.environment(),
                **({STANDBY_VARIABLE: "1"} if on_standby else {}),
                FORMAT_VARIABLE: "json",
                "PYTHONUNBUFFERED": "1",
            },
            stdin=asyncio.subprocess.PIPE if on_standby else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=(self.lifeline.read_fd, *self.pass_fds),
            start_new_session=True,
            limit=MAX_LINE_BYTES,
        )


@dataclass(slots=True)
class Instance:
    """One process of a child, from its start to its end."""

    process: asyncio.subprocess.Process
    on_standby: bool = False
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: bool = False

    async def is_ready(self) -> bool:
        """Wait until it is ready; False when it ended before."""
        ready = asyncio.create_task(self.ready.wait())
        ended = asyncio.create_task(self.ended.wait())
        await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        ended.cancel()
        return self.ready.is_set() and not self.ended.is_set()

    def go_on(self) -> None:
        """End its standby."""
        self.on_standby = False
        tell_to_go_on(self.process)

    def ask_to_end(self) -> None:
        """Send SIGTERM, once: a second one would force the process to leave its work."""
        if self.on_standby:
            self.kill()
        elif not self._asked and self.process.returncode is None:
            self._asked = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, and what it started; the number stays taken while any of it is left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


def tell_to_go_on(process: asyncio.subprocess.Process) -> None:
    """End the standby of a process; one that has ended is left alone."""
    if process.stdin is not None:
        process.stdin.write(GO)
        process.stdin.close()
