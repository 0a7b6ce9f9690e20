"""A child process of `dev`: started with a lifeline, heard line by line, restarted when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from triggerkit.embedded.lifeline import Lifeline
from triggerkit.supervisor.logs import FORMAT_VARIABLE, is_own_line

State = Literal["starting", "running", "stopping", "stopped", "restarting"]

#: Seconds before a child that died is started again: the first wait and the longest.
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0

#: Seconds between two looks whether a child ended without closing its output.
LOOK_S = 0.5

#: Longest line of a child's log, in bytes.
MAX_LINE_BYTES = 4 * 1024 * 1024

#: One line of a child's log: (child's name, facts). A line that is not JSON has only a message.
OnLine = Callable[[str, dict[str, Any]], None]


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

    async def start(self) -> asyncio.subprocess.Process:
        """Start it, in a session of its own: a Ctrl-C is for `dev`, which drains in order."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *self.arguments,
            cwd=self.folder,
            env={
                **self.environment,
                **self.lifeline.environment(),
                FORMAT_VARIABLE: "json",
                "PYTHONUNBUFFERED": "1",
            },
            stdin=asyncio.subprocess.DEVNULL,
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

    def ask_to_end(self) -> None:
        """Send SIGTERM, once: a second one would force the process to leave its work."""
        if not self._asked:
            self._asked = True
            self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End it at once, and all it started."""
        _end_group(self.process.pid)


class Child:
    """One of our own commands, kept running until `stop`."""

    def __init__(self, command: Command, on_line: OnLine) -> None:
        self.name = command.name
        self.state: State = "stopped"
        self.ready = asyncio.Event()
        self._command = command
        self._on_line = on_line
        self._instance: Instance | None = None
        self._alive: dict[asyncio.Task[None], Instance] = {}
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The process's id, None when it is not running."""
        instance = self._instance
        return None if instance is None or instance.ended.is_set() else instance.process.pid

    @property
    def alive(self) -> list[int]:
        """The ids of all its processes, those included that finish what they have."""
        return [instance.process.pid for instance in self._alive.values()]

    async def run(self) -> None:
        """Keep the child running; returns after `stop`."""
        wait_s = FIRST_WAIT_S
        while not self._stopping:
            self.state = "starting"
            self._instance = await self._start()
            if await self._instance.is_ready():
                self._is_running()
                wait_s = FIRST_WAIT_S
            code = await self._until_ended()
            if self._stopping:
                break
            self.state = "restarting"
            died = {"event": "died", "pid": self._instance.process.pid, "code": code}
            self._on_line(self.name, {**died, "wait_s": wait_s})
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)
        self.state = "stopped"

    async def replace(self) -> bool:
        """Start a new process and end the old one once the new is ready.

        Returns False when the new one ended instead: the old one goes on.
        """
        new = await self._start()
        if not await new.is_ready():
            return False
        old, self._instance = self._instance, new
        self._is_running()
        if old is not None:
            old.ask_to_end()
        return True

    def ask_to_end(self) -> None:
        """Ask all its processes to finish what they do and end."""
        self._stopping = True
        self.state = "stopping"
        for instance in self._alive.values():
            instance.ask_to_end()

    async def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self.ask_to_end()
        await asyncio.gather(*self._alive)
        self.state = "stopped"

    def kill(self) -> None:
        """End the child at once."""
        self._stopping = True
        for instance in self._alive.values():
            instance.kill()

    async def _start(self) -> Instance:
        instance = Instance(await self._command.start())
        if not self._command.announces:
            instance.ready.set()
        task = asyncio.create_task(self._hear(instance))
        self._alive[task] = instance
        task.add_done_callback(self._alive.pop)
        return instance

    async def _until_ended(self) -> int:
        """Wait for the end of the current process; one that was replaced does not count."""
        while True:
            instance = self._instance
            assert instance is not None
            await instance.ended.wait()
            if instance is self._instance:
                return instance.process.returncode or 0

    async def _hear(self, instance: Instance) -> None:
        """Show what it says until it has ended, then end what it leaves behind."""
        process = instance.process
        reading = asyncio.create_task(self._read(instance))
        # Its output may stay open longer than it lives: what it started has it too.
        while process.returncode is None and not reading.done():
            await asyncio.wait({reading}, timeout=LOOK_S)
        if not reading.done():
            _end_group(process.pid)
            await asyncio.wait({reading}, timeout=LOOK_S)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        if process.returncode is None:
            await process.wait()
        _end_group(process.pid)
        instance.ended.set()

    async def _read(self, instance: Instance) -> None:
        assert instance.process.stdout is not None
        while line := await _next_line(instance.process.stdout):
            facts = _parse(line)
            if facts.get("event") == "state" and facts.get("state") == "ready":
                instance.ready.set()
            self._on_line(self.name, facts)

    def _is_running(self) -> None:
        self.state = "running"
        self.ready.set()


def _end_group(leader: int) -> None:
    """End what is left of a child's process group; the number stays taken while any is."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


async def _next_line(output: asyncio.StreamReader) -> bytes:
    """The next line, empty at the end."""
    try:
        return await output.readline()
    except ValueError:
        return f"(a line of more than {MAX_LINE_BYTES} bytes was left out)".encode()


def _parse(line: bytes) -> dict[str, Any]:
    """What one of our own log lines says. All else, JSON or not, is the project's output."""
    with contextlib.suppress(orjson.JSONDecodeError):
        facts = orjson.loads(line)
        if isinstance(facts, dict) and is_own_line(facts):
            return facts
    return {"event": "output", "message": line.decode(errors="replace").rstrip()}
