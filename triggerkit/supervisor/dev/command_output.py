"""A command of ours that `dev` runs to its end."""

from __future__ import annotations

from triggerkit.errors import TriggerkitError
from triggerkit.supervisor.dev.instance import Command


async def run_errand(command: Command) -> list[str]:
    """Run `command` to its end and return the lines it printed.

    Raises:
        ErrandFailed: it failed; the error has the lines.
    """
    process = await command.start()
    assert process.stdout is not None
    lines = (await process.stdout.read()).decode(errors="replace").splitlines()
    if code := await process.wait():
        raise ErrandFailed(command.name, code, lines)
    return lines


class ErrandFailed(TriggerkitError):
    """A command that `dev` ran failed; its output is above."""

    def __init__(self, name: str, code: int, lines: list[str]) -> None:
        super().__init__(f"{name} failed; its output is above")
        self.exit_code = code
        self.lines = lines
