"""`dev` notices changed code: before it watches, too, and where not all of a folder can be read."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from triggerkit.supervisor.dev import code
from triggerkit.supervisor.dev.code import Facts, code_changes, code_files
from triggerkit.supervisor.dev.instance import child_environment

#: Prints the first change of the code in a folder.
WATCH = """
import asyncio, os, queue, sys
import anyio._backends._asyncio, platform
from pathlib import Path
from triggerkit.supervisor.dev import code
from triggerkit.supervisor.dev.code import code_changes, code_files

async def first():
    folder = Path(sys.argv[1])
    if os.geteuid() == 0:
        os.setuid(65534)
    before = code_files(folder)
    print("begun", sorted(before), flush=True)
    async for changed in code_changes(folder, before, print):
        print(changed, flush=True)
        return

asyncio.run(first())
"""


def first_change(
    folder: Path, before: dict[str, Facts], tell: Callable[[str], None] = print
) -> list[str]:
    """The first change that is noticed."""

    async def noticed() -> list[str]:
        async with asyncio.timeout(20):
            return await anext(code_changes(folder, before, tell))

    return asyncio.run(noticed())


def test_a_save_before_the_folder_is_watched_is_not_lost(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("first = 1")
    gone = tmp_path / "gone.py"
    gone.touch()
    before = code_files(tmp_path)
    module.write_text("second = 2")
    gone.unlink()
    (tmp_path / "new.py").touch()
    (tmp_path / "note.txt").touch()
    assert first_change(tmp_path, before) == ["gone.py", "module.py", "new.py"]


def test_a_folder_that_cannot_be_watched_is_told_of_and_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    watch = watchfiles.awatch

    def limited(folder: Path, *, force_polling: bool | None, **given: Any) -> Any:
        if not force_polling:
            raise OSError("OS file watch limit reached")
        return watch(folder, force_polling=True, **given)

    monkeypatch.setattr(code, "awatch", limited)
    before = code_files(tmp_path)
    (tmp_path / "module.py").touch()
    assert first_change(tmp_path, before, told.append) == ["module.py"]
    assert len(told) == 1
    assert "cannot be watched (OS file watch limit reached)" in told[0]


def test_a_folder_within_that_nobody_may_read_ends_no_reloading(tmp_path: Path) -> None:
    closed = tmp_path / "data"
    closed.mkdir(mode=0o700)
    (closed / "hidden.py").touch()
    module = tmp_path / "module.py"
    module.touch()
    # Root may read everything: another user watches then.
    is_root = os.geteuid() == 0
    if is_root:
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(folder.stat().st_mode | 0o055)
    else:
        closed.chmod(0)
    with subprocess.Popen(
        [sys.executable, "-c", WATCH, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[4],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"begun {[str(module)]}\n"
        module.write_text("changed = True")
        assert process.stdout.readline() == "['module.py']\n"
    closed.chmod(0o700)


def test_what_embedded_servers_write_is_not_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of their writes would be told of, and cost `dev` and them."""
    watched: list[tuple[set[str], bool]] = []
    watch = watchfiles.awatch

    def noted(*folders: Path | str, recursive: bool, **given: Any) -> Any:
        watched.append(({Path(folder).name for folder in folders}, recursive))
        return watch(*folders, recursive=recursive, **given)

    monkeypatch.setattr(code, "awatch", noted)
    for name in (".triggerkit", ".git", "package"):
        (tmp_path / name).mkdir()
    before = code_files(tmp_path)
    (tmp_path / "module.py").touch()
    assert first_change(tmp_path, before) == ["module.py"]
    assert watched == [({tmp_path.name}, False), ({"package"}, True)]


def test_a_save_while_another_is_dealt_with_is_not_lost(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    one, two = folder / "one.py", folder / "two.py"
    before = code_files(tmp_path)

    async def noticed() -> None:
        changes = code_changes(tmp_path, before, print)
        async with asyncio.timeout(20):
            first = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            one.write_text("one = 1")
            assert await first == ["tasks/one.py"]
            two.write_text("two = 2")
            # As long as a reload takes: it is noticed meanwhile.
            await asyncio.sleep(1)
            assert await anext(changes) == ["tasks/two.py"]

    asyncio.run(noticed())


def test_code_in_folders_that_come_later_is_noticed(tmp_path: Path) -> None:
    """In a new one, in one that was renamed, and what is saved in the same moment."""
    (tmp_path / "module.py").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "tasks.py").touch()
    before = code_files(tmp_path)
    noticed: set[str] = set()

    async def follow() -> None:
        async def until(paths: set[str]) -> None:
            while not paths <= noticed:
                noticed.update(await anext(changes))

        changes = code_changes(tmp_path, before, print)
        async with asyncio.timeout(20):
            (tmp_path / "module.py").write_text("begun = True")
            await until({"module.py"})
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "tasks.py").touch()
            (tmp_path / "other.py").touch()
            await until({"new/tasks.py", "other.py"})
            noticed.clear()
            (tmp_path / "new" / "tasks.py").write_text("again = True")
            await until({"new/tasks.py"})
            (tmp_path / "old").rename(tmp_path / "renamed")
            await until({"old/tasks.py", "renamed/tasks.py"})
            noticed.clear()
            (tmp_path / "renamed" / "tasks.py").write_text("again = True")
            await until({"renamed/tasks.py"})

    asyncio.run(follow())


def test_a_child_gets_no_empty_setting_and_no_proxy_for_this_machine() -> None:
    outer = {"OPENAI_BASE_URL": "", "OTHER": "", "NO_PROXY": "intern.example, localhost"}
    environment = child_environment(outer, {"DATABASE_URL": "x"})
    direct = "intern.example,localhost,127.0.0.1,::1"
    assert environment == {
        "OTHER": "",
        "DATABASE_URL": "x",
        "NO_PROXY": direct,
        "no_proxy": direct,
    }
