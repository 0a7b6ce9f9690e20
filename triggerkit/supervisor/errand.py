"""A command of ours that `dev` runs to its end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from triggerkit.embedded.lifeline import Lifeline
from triggerkit.errors import TriggerkitError
from triggerkit.supervisor.instance import tell_to_go_on
from triggerkit.supervisor.standby import VARIABLE


class Errand:
    """`triggerkit ARGUMENTS`, whose process may be started ahead and stand by."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], lifeline: Lifeline, *arguments: str
    ) -> None:
        self._folder = folder
        self._environment = environment
        self._lifeline = lifeline
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None

    async def stand_by(self, module: str) -> None:
        """Start its process, which imports `module` and waits for `run`."""
        if self._process is None:
            command = ["triggerkit.supervisor.standby", module, *self._arguments]
            self._process = await self._start(command, {VARIABLE: "1"}, asyncio.subprocess.PIPE)

    async def run(self) -> list[str]:
        """Run it to its end and return the lines it printed.

        Raises:
            ErrandFailed: it failed; the error has the lines.
        """
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            command = ["triggerkit", *self._arguments]
            process = await self._start(command, {}, asyncio.subprocess.DEVNULL)
        tell_to_go_on(process)
        assert process.stdout is not None
        lines = (await process.stdout.read()).decode(errors="replace").splitlines()
        if code := await process.wait():
            raise ErrandFailed(self._arguments[0], code, lines)
        return lines

    def forget(self) -> None:
        """End a process that stands by."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    async def _start(
        self, command: Sequence[str], more: Mapping[str, str], stdin: int
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *command,
            cwd=self._folder,
            env={**self._environment, **self._lifeline.environment(), **more},
            pass_fds=(self._lifeline.read_fd,),
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )


class ErrandFailed(TriggerkitError):
    """A command that `dev` ran failed; its output is above."""

    def __init__(self, name: str, code: int, lines: list[str]) -> None:
        super().__init__(f"{name} failed; its output is above")
        self.exit_code = code
        self.lines = lines
