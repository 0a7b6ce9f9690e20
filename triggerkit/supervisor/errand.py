"""A command of ours that `dev` runs to its end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from triggerkit.embedded.lifeline import Lifeline
from triggerkit.errors import TriggerkitError


async def run_errand(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], lifeline: Lifeline
) -> list[str]:
    """Run `triggerkit ARGUMENTS` and return the lines it printed.

    Raises:
        ErrandFailed: it failed; the error has the lines, and the command's exit code as its own.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "triggerkit",
        *arguments,
        cwd=folder,
        env={**environment, **lifeline.environment()},
        pass_fds=(lifeline.read_fd,),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    output, _ = await process.communicate()
    lines = output.decode(errors="replace").splitlines()
    if process.returncode:
        raise ErrandFailed(arguments[0], process.returncode, lines)
    return lines


class ErrandFailed(TriggerkitError):
    """A command that `dev` ran failed; its output is above."""

    def __init__(self, name: str, code: int, lines: list[str]) -> None:
        super().__init__(f"{name} failed; its output is above")
        self.exit_code = code
        self.lines = lines
