"""New code takes over when the project's files change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import psycopg

from triggerkit.errors import TriggerkitError
from triggerkit.supervisor.dev.child import CommandProcess
from triggerkit.supervisor.dev.code import Facts, code_changes
from triggerkit.supervisor.dev.command_output import ErrandFailed, run_errand
from triggerkit.supervisor.dev.console import Console
from triggerkit.supervisor.dev.instance import Command


class Reload:
    """Has new processes take over from old ones, and the consumers made as the code declares."""

    def __init__(
        self,
        folder: Path,
        before: Mapping[str, Facts],
        children: Sequence[CommandProcess],
        deliveries: CommandProcess,
        apply: Command,
        console: Console,
        on_change: Callable[[], None],
        uses_code: Callable[[], Awaitable[bool]],
    ) -> None:
        """`before` are the files of the code as they were when its processes started. `on_change`
        is called before new processes start. `deliveries` is what delivers: alone in that, and
        started anew if it has code of the project."""
        self._folder = folder
        self._before = before
        self._children = children
        self._deliveries = deliveries
        self._apply = apply
        self._console = console
        self._on_change = on_change
        self._uses_code = uses_code

    async def follow(self) -> None:
        """Reload whenever the code changes, until canceled."""
        async for changed in code_changes(self._folder, self._before, self._console.problem):
            self._on_change()
            self._console.note(f"changed: {', '.join(changed)}")
            try:
                await self._reload()
            except (TriggerkitError, psycopg.Error, OSError) as error:
                self._console.problem(f"the reload failed, save once more to try again: {error}")

    async def _reload(self) -> None:
        started = time.monotonic()
        new = await asyncio.gather(*(child.successor() for child in self._children))
        ready = [instance for instance in new if instance is not None]
        if len(ready) < len(new):
            for instance in ready:
                instance.ask_to_end()
            self._console.problem("the new code cannot be loaded; the old goes on")
            return
        for child, instance in zip(self._children, ready, strict=True):
            child.take_over(instance)
        await self._make_consumers()
        if await self._uses_code():
            self._deliveries.restart()
        ms = (time.monotonic() - started) * 1000
        self._console.note(f"reloaded in {ms:.0f} ms")

    async def _make_consumers(self) -> None:
        try:
            for line in await run_errand(self._apply):
                self._console.note(f"  {line}")
        except ErrandFailed as error:
            for line in error.lines:
                self._console.problem(line)
