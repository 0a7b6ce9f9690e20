"""New code takes over when the project's files change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from watchfiles import Change, DefaultFilter, awatch

import triggerkit
from triggerkit.settings import STATE_DIR
from triggerkit.supervisor.child import Child
from triggerkit.supervisor.console import Console
from triggerkit.supervisor.errand import Errand, ErrandFailed

#: Milliseconds of quiet after a change before it is told, so that an editor's several writes
#: count as one.
QUIET_MS = 100


#: Seconds of rest before processes are started ahead: what comes just before needs the machine.
REST_S = 1.0


class CodeFilter(DefaultFilter):
    """Python files and the project's own files; nothing a run of the project writes."""

    ignore_dirs = (*DefaultFilter.ignore_dirs, STATE_DIR, "tests")

    def __call__(self, change: Change, path: str) -> bool:
        """Whether a change of `path` means new code."""
        return super().__call__(change, path) and path.endswith((".py", "triggerkit.toml"))


class Reload:
    """Has new processes take over from old ones, and the consumers made as the code declares."""

    def __init__(
        self,
        folder: Path,
        children: Sequence[Child],
        apply: Errand,
        console: Console,
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is called before new processes start."""
        self._folder = folder
        self._children = children
        self._apply = apply
        self._console = console
        self._on_change = on_change

    async def follow(self) -> None:
        """Reload whenever the code changes, until canceled."""
        standing_by = asyncio.create_task(self._stand_by())
        try:
            async for changed in code_changes(self._folder):
                standing_by.cancel()
                await asyncio.gather(standing_by, return_exceptions=True)
                self._on_change()
                self._console.note(f"changed: {', '.join(changed)}")
                await self._reload(cold=_needs_cold_start(self._folder, changed))
                standing_by = asyncio.create_task(self._stand_by())
        finally:
            standing_by.cancel()
            self._apply.forget()

    async def _reload(self, *, cold: bool) -> None:
        started = time.monotonic()
        new = await asyncio.gather(*(child.successor(cold=cold) for child in self._children))
        ready = [instance for instance in new if instance is not None]
        if len(ready) < len(new):
            for instance in ready:
                instance.ask_to_end()
            self._console.problem("the new code cannot be loaded; the old goes on")
            return
        for child, instance in zip(self._children, ready, strict=True):
            child.take_over(instance)
        await self._make_consumers(cold=cold)
        ms = (time.monotonic() - started) * 1000
        self._console.note(f"reloaded in {ms:.0f} ms")

    async def _make_consumers(self, *, cold: bool) -> None:
        if cold:
            self._apply.forget()
        try:
            for line in await self._apply.run():
                self._console.note(f"  {line}")
        except ErrandFailed as error:
            for line in error.lines:
                self._console.problem(line)

    async def _stand_by(self) -> None:
        await asyncio.sleep(REST_S)
        for child in self._children:
            await child.stand_by()
        await self._apply.stand_by("triggerkit.cli.project")


def _needs_cold_start(folder: Path, changed: Sequence[str]) -> bool:
    """Whether what changed was read by the processes that stand by: our own code, or the file."""
    ours = Path(triggerkit.__file__).parent
    return any(path.endswith(".toml") or (folder / path).is_relative_to(ours) for path in changed)


async def code_changes(folder: Path) -> AsyncIterator[list[str]]:
    """The paths that changed, relative to `folder`, each time some did."""
    async for changed in awatch(folder, watch_filter=CodeFilter(), debounce=QUIET_MS, step=50):
        yield sorted({_shown(Path(path), folder) for _, path in changed})


def _shown(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
