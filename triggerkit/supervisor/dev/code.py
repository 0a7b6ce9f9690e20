"""Notice that the project's code changed, from the moment at which its processes read it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing
from functools import partial
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
    polls = False
    while True:
        is_first = True
        try:
            async with aclosing(_watched(folder, polls=polls)) as looks:
                async for paths in looks:
                    now = code_files(folder)
                    if is_first:
                        # While nobody watched.
                        paths |= _differences(before, now)
                    before, is_first = now, False
                    if paths:
                        yield sorted(_shown(Path(path), folder) for path in paths)
        except Exception as error:
            if not polls:
                tell(
                    f"{folder} cannot be watched ({error}): its files are looked at instead, so "
                    "that new code takes over later than it could"
                )
            polls = True
            await asyncio.sleep(AGAIN_S)


async def _watched(folder: Path, *, polls: bool) -> AsyncGenerator[set[str]]:
    """Yield the paths of code that changed: first none, once watching has begun. Ends when there
    are other folders in `folder`.

    What is in `folder` is watched by itself, and not all below it: embedded servers have their
    files there, and each time they wrote to one, it would be told of.
    """
    within = _folders_in(folder)
    paths: set[str] = set()
    looks = asyncio.Event()
    watch = partial(_watch, paths, looks, polls=polls)
    watches = [asyncio.ensure_future(watch([folder], recursive=False))]
    if within:
        watches.append(asyncio.ensure_future(watch(within, recursive=True)))
    for task in watches:
        task.add_done_callback(lambda _: looks.set())
    try:
        while _folders_in(folder) == within:
            await looks.wait()
            looks.clear()
            for task in watches:
                if task.done():
                    task.result()
            told = set(paths)
            # Before they are told: more may come while they are being dealt with.
            paths.clear()
            yield told
    except FileNotFoundError:
        # A folder that is gone before it is watched is none that cannot be.
        if _folders_in(folder) == within:
            raise
    finally:
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


async def _watch(
    paths: set[str],
    looks: asyncio.Event,
    folders: Collection[str | Path],
    *,
    recursive: bool,
    polls: bool,
) -> None:
    """Put what changes into `paths`, and set `looks`, also when watching has begun."""
    is_code = CodeFilter()
    has_begun = False
    async for changed in awatch(
        *folders,
        watch_filter=is_code if recursive else _code_or_folder,
        debounce=QUIET_MS,
        step=50,
        rust_timeout=BEGUN_MS,
        yield_on_timeout=True,
        ignore_permission_denied=True,
        force_polling=polls or None,
        recursive=recursive,
    ):
        if changed or not has_begun:
            has_begun = True
            paths |= {path for change, path in changed if is_code(change, path)}
            looks.set()


def _code_or_folder(change: Change, path: str) -> bool:
    """Return whether `path` is code, or a folder that may have some; what is gone may be one."""
    return DefaultFilter(ignore_dirs=CodeFilter.ignore_dirs)(change, path) and (
        CodeFilter()(change, path) or not os.path.isfile(path)
    )


def _folders_in(folder: Path) -> set[str]:
    with os.scandir(folder) as entries:
        return {e.path for e in entries if e.is_dir() and e.name not in CodeFilter.ignore_dirs}


def _differences(before: Mapping[str, Facts], now: Mapping[str, Facts]) -> set[str]:
    return {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}


def _shown(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
