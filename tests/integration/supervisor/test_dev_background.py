"""What fails in the background of `dev` is told, and what it starts again it does start again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.supervisor.dev.child import CommandProcess
from triggerkit.supervisor.dev.console import JsonConsole
from triggerkit.supervisor.dev.instance import Command
from triggerkit.supervisor.dev.supervisor import Dev


class Told(JsonConsole):
    """Keeps the problems it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.problems: list[str] = []

    def problem(self, text: str) -> None:
        self.problems.append(text)


async def failing() -> None:
    raise RuntimeError("disk full")


def test_work_in_the_background_that_fails_is_told_by_what_it_is(tmp_path: Path) -> None:
    told = Told()

    async def fails() -> None:
        dev = Dev(Project.load(tmp_path), Settings.parse({}), told, None)
        await asyncio.wait([dev._spawn(failing(), "reloading")])
        # Its end is told by a callback of the loop.
        await asyncio.sleep(0)

    asyncio.run(fails())
    [problem] = told.problems
    assert problem.startswith("reloading ended by an error")
    assert "RuntimeError: disk full" in problem


def test_a_process_that_cannot_be_started_is_told_of_and_tried_again(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []

    async def started() -> None:
        starts = 0

        class Scarce(Command):
            async def start(self) -> Any:
                nonlocal starts
                starts += 1
                if starts == 1:
                    raise OSError(12, "Cannot allocate memory")
                child.ask_to_end()
                return await asyncio.create_subprocess_exec(
                    "true", stdout=asyncio.subprocess.PIPE, start_new_session=True
                )

        command = Scarce("worker", [], tmp_path, {}, None, announces=False)  # type: ignore[arg-type]
        child = CommandProcess(command, lambda _, facts: lines.append(facts))
        async with asyncio.timeout(20):
            await child.run()
        assert starts == 2

    asyncio.run(started())
    [told] = [facts for facts in lines if facts.get("event") == "unstarted"]
    assert "Cannot allocate memory" in told["why"]
