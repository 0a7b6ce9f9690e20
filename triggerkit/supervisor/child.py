"""A child process of `dev`: started with a lifeline, heard line by line, restarted when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import orjson

from triggerkit.embedded.lifeline import Lifeline
from triggerkit.supervisor.logs import FORMAT_VARIABLE

State = Literal["starting", "running", "stopping", "stopped", "restarting"]

#: Seconds before a child that died is started again: the first wait and the longest.
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0

#: One line of a child's log: (child's name, facts). A line that is not JSON has only a message.
OnLine = Callable[[str, dict[str, Any]], None]


class Child:
    """One of our own commands, kept running until `stop`."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        lifeline: Lifeline,
        on_line: OnLine,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.state: State = "stopped"
        self.pid: int | None = None
        self.ready = asyncio.Event()
        #: Set for a child that does not announce itself.
        self.ready_at_start = False
        self._command = [sys.executable, "-m", *arguments]
        self._folder = folder
        self._environment = {
            **environment,
            **lifeline.environment(),
            FORMAT_VARIABLE: "json",
            "PYTHONUNBUFFERED": "1",
        }
        self._pass_fds = (lifeline.read_fd, *pass_fds)
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def run(self) -> None:
        """Keep the child running; returns after `stop`."""
        wait_s = FIRST_WAIT_S
        while not self._stopping:
            code = await self._run_once()
            if self._stopping:
                break
            if self.ready.is_set():
                wait_s = FIRST_WAIT_S
            self.state = "restarting"
            self.ready.clear()
            self._on_line(self.name, {"event": "died", "code": code, "wait_s": wait_s})
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)
        self.state = "stopped"

    async def stop(self) -> None:
        """Ask the child to end by SIGTERM, and wait until it has."""
        self._stopping = True
        self._signal(signal.SIGTERM)
        if self._process is not None:
            await self._process.wait()

    def kill(self) -> None:
        """End the child at once."""
        self._stopping = True
        self._signal(signal.SIGKILL)

    async def _run_once(self) -> int:
        self.state = "starting"
        # In a session of its own: a Ctrl-C at the terminal is for `dev`, which drains in order.
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=self._pass_fds,
            start_new_session=True,
            limit=4 * 1024 * 1024,
        )
        self.pid = process.pid
        if self.ready_at_start:
            self._is_ready()
        assert process.stdout is not None
        async for line in process.stdout:
            self._heard(line)
        code = await process.wait()
        self.pid = None
        return code

    def _heard(self, line: bytes) -> None:
        try:
            facts = orjson.loads(line)
        except orjson.JSONDecodeError:
            facts = None
        if not isinstance(facts, dict):
            facts = {"event": "output", "message": line.decode(errors="replace").rstrip()}
        if facts.get("event") == "state" and facts.get("state") == "ready":
            self._is_ready()
        self._on_line(self.name, facts)

    def _is_ready(self) -> None:
        self.state = "running"
        self.ready.set()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            if number == signal.SIGTERM:
                self.state = "stopping"
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)
