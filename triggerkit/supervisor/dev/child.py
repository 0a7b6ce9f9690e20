"""A child process of `dev`: started with a lifeline, heard line by line, restarted when it dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Literal

import orjson

from triggerkit.supervisor.dev.instance import MAX_LINE_BYTES, Command, Instance
from triggerkit.supervisor.logs import is_own_line

State = Literal["starting", "running", "stopping", "stopped", "restarting"]

#: Seconds before a child that died is started again: the first wait and the longest.
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0

#: Seconds between two looks whether a child ended without closing its output.
LOOK_S = 0.5

#: One line of a child's log: (child's name, facts). A line that is not JSON has only a message.
OnLine = Callable[[str, dict[str, Any]], None]


class CommandProcess:
    """One of our own commands, kept running until `stop`."""

    def __init__(self, command: Command, on_line: OnLine) -> None:
        self.name = command.name
        self.state: State = "stopped"
        self.ready = asyncio.Event()
        self._command = command
        self._on_line = on_line
        self._instance: Instance | None = None
        self._alive: dict[asyncio.Task[None], Instance] = {}
        self._replaced: Instance | None = None
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
            try:
                self._instance = await self._start()
            except OSError as error:
                # Such as too little memory for another process: there may be more soon.
                self._on_line(
                    self.name, {"event": "unstarted", "why": str(error), "wait_s": wait_s}
                )
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
                continue
            if await self._instance.is_ready():
                self._is_running()
                wait_s = FIRST_WAIT_S
            code = await self._until_ended()
            if self._stopping:
                break
            if self._instance is self._replaced:
                continue
            self.state = "restarting"
            died = {"event": "died", "pid": self._instance.process.pid, "code": code}
            self._on_line(self.name, {**died, "wait_s": wait_s})
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)
        self.state = "stopped"

    async def successor(self) -> Instance | None:
        """Return a new process beside the present one, once it is ready; None when it ended
        instead."""
        new = await self._start()
        return new if await new.is_ready() else None

    def restart(self) -> None:
        """End the present process, which finishes what it has; another one follows it."""
        if self._instance is not None:
            self._replaced = self._instance
            self._instance.ask_to_end()

    def take_over(self, new: Instance) -> None:
        """Make `new` the present process; the one before it finishes what it has."""
        old, self._instance = self._instance, new
        self._is_running()
        if old is not None:
            old.ask_to_end()

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
            instance.kill()
            await asyncio.wait({reading}, timeout=LOOK_S)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        if process.returncode is None:
            await process.wait()
        instance.kill()
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


async def _next_line(output: asyncio.StreamReader) -> bytes:
    """Return the next line, empty at the end."""
    try:
        return await output.readline()
    except ValueError:
        return f"(a line of more than {MAX_LINE_BYTES} bytes was left out)".encode()


def _parse(line: bytes) -> dict[str, Any]:
    """Parse one of our own log lines. All else, JSON or not, is the project's output."""
    with contextlib.suppress(orjson.JSONDecodeError):
        facts = orjson.loads(line)
        if isinstance(facts, dict) and is_own_line(facts):
            return facts
    return {"event": "output", "message": line.decode(errors="replace").rstrip()}
