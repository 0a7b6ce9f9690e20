"""Notice that the project's code changed, from the moment at which its processes read it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from watchfiles import Change, DefaultFilter, awatch

from triggerkit.settings import STATE_DIR

#: Milliseconds of quiet after a change before it is told, so that an editor's several writes
#: count as one.
QUIET_MS = 100

#: Milliseconds after which watching counts as begun.
BEGUN_MS = 500

#: Seconds before a folder that could not be watched is watched again, by looking at its files.
AGAIN_S = 2.0

#: What a file was like: its time of change in nanoseconds, its size and its number.
Facts = tuple[int, int, int]


class CodeFilter(DefaultFilter):
    """Python files and the project's own files; nothing a run of the project writes."""

    ignore_dirs = (*DefaultFilter.ignore_dirs, STATE_DIR, "tests")

    def __call__(self, change: Change, path: str) -> bool:
        """Return whether a change of `path` means new code."""
        return super().__call__(change, path) and path.endswith((".py", "triggerkit.toml"))


def code_files(folder: Path) -> dict[str, Facts]:
    """Return the files of the code in `folder`; what cannot be read is not among them."""
    wanted = CodeFilter()
    files: dict[str, Facts] = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in CodeFilter.ignore_dirs]
        for name in names:
            path = os.path.join(parent, name)
            if wanted(Change.modified, path):
                try:
                    status = os.stat(path)
                except OSError:
                    continue
                files[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return files


async def code_changes(
    folder: Path, before: Mapping[str, Facts], tell: Callable[[str], None]
) -> AsyncIterator[list[str]]:
    """Yield the paths that changed, relative to `folder`, each time some did, without an end.

    What changed since the files were as in `before` comes first. `tell` is called when the folder
    cannot be watched as it should; then its files are looked at from time to time.
    """
    seen: Mapping[str, Facts] | None = before
    polls = False
    while True:
        try:
            async for changed in awatch(
                folder,
                watch_filter=CodeFilter(),
                debounce=QUIET_MS,
                step=50,
                rust_timeout=BEGUN_MS,
                yield_on_timeout=True,
                ignore_permission_denied=True,
                force_polling=polls or None,
            ):
                if paths := {path for _, path in changed} | _differences(seen, folder):
                    yield sorted(_shown(Path(path), folder) for path in paths)
                seen = None
        except Exception as error:
            if not polls:
                tell(
                    f"{folder} cannot be watched ({error}): its files are looked at instead, so "
                    "that new code takes over later than it could"
                )
            polls, seen = True, code_files(folder) if seen is None else seen
            await asyncio.sleep(AGAIN_S)


def _differences(before: Mapping[str, Facts] | None, folder: Path) -> set[str]:
    """Return what is other than `before`; nothing where that is not asked for."""
    if before is None:
        return set()
    now = code_files(folder)
    return {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}


def _shown(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
