"""Noticing that the project's code changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from watchfiles import Change, DefaultFilter, awatch

from triggerkit.settings import STATE_DIR

#: Milliseconds of quiet after a change before it is told, so that an editor's several writes
#: count as one.
QUIET_MS = 100


class CodeFilter(DefaultFilter):
    """Python files and the project's own files; nothing a run of the project writes."""

    ignore_dirs = (*DefaultFilter.ignore_dirs, STATE_DIR, "tests")

    def __call__(self, change: Change, path: str) -> bool:
        """Whether a change of `path` means new code."""
        return super().__call__(change, path) and path.endswith((".py", "triggerkit.toml"))


async def code_changes(folder: Path) -> AsyncIterator[list[str]]:
    """The paths that changed, relative to `folder`, each time some did."""
    async for changed in awatch(folder, watch_filter=CodeFilter(), debounce=QUIET_MS, step=50):
        yield sorted({_shown(Path(path), folder) for _, path in changed})


def _shown(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
