"""New code takes over when the project's files change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from watchfiles import Change, DefaultFilter, awatch

from triggerkit.settings import STATE_DIR
from triggerkit.supervisor.dev.child import CommandProcess
from triggerkit.supervisor.dev.command_output import ErrandFailed, run_errand
from triggerkit.supervisor.dev.console import Console
from triggerkit.supervisor.dev.instance import Command

#: Milliseconds of quiet after a change before it is told, so that an editor's several writes
#: count as one.
QUIET_MS = 100


class CodeFilter(DefaultFilter):
    """Python files and the project's own files; nothing a run of the project writes."""

    ignore_dirs = (*DefaultFilter.ignore_dirs, STATE_DIR, "tests")

    def __call__(self, change: Change, path: str) -> bool:
        """Return whether a change of `path` means new code."""
        return super().__call__(change, path) and path.endswith((".py", "triggerkit.toml"))


class Reload:
    """Has new processes take over from old ones, and the consumers made as the code declares."""

    def __init__(
        self,
        folder: Path,
        children: Sequence[CommandProcess],
        stream: CommandProcess,
        apply: Command,
        console: Console,
        on_change: Callable[[], None],
        uses_functions: Callable[[], Awaitable[bool]],
    ) -> None:
        """`on_change` is called before new processes start. `stream` is alone in what it does, and
        is started anew if it has functions of the project."""
        self._folder = folder
        self._children = children
        self._stream = stream
        self._apply = apply
        self._console = console
        self._on_change = on_change
        self._uses_functions = uses_functions

    async def follow(self) -> None:
        """Reload whenever the code changes, until canceled."""
        async for changed in code_changes(self._folder):
            self._on_change()
            self._console.note(f"changed: {', '.join(changed)}")
            await self._reload()

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
        if await self._uses_functions():
            self._stream.restart()
        ms = (time.monotonic() - started) * 1000
        self._console.note(f"reloaded in {ms:.0f} ms")

    async def _make_consumers(self) -> None:
        try:
            for line in await run_errand(self._apply):
                self._console.note(f"  {line}")
        except ErrandFailed as error:
            for line in error.lines:
                self._console.problem(line)


async def code_changes(folder: Path) -> AsyncIterator[list[str]]:
    """Yield the paths that changed, relative to `folder`, each time some did."""
    async for changed in awatch(folder, watch_filter=CodeFilter(), debounce=QUIET_MS, step=50):
        yield sorted({_shown(Path(path), folder) for _, path in changed})


def _shown(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
