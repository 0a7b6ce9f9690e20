"""What `dev` prints: JSON for programs, colours where they are wanted, little when asked to."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.project import DevProcess, eventually
from tests.acceptance.small import SmallProject
from tests.acceptance.terminal import Terminal

ESCAPE = "\x1b"

#: Lines that a program might take for ours, or that break what reads them line by line.
TALKATIVE = r"""
import sys
from typing import Any
from triggerkit import Change, Retry, rows, task

@task(on=rows("public.items"), retry=Retry(max_attempts=1))
def talk(change: Change[dict[str, Any]]) -> None:
    print('{"event": "ready", "process": "mine", "url": "elsewhere"}')
    print('{"event": "run", "level": "info"}')
    print('{"event": "state", "state": "ready"}')
    print("[not json")
    print("x" * (5 * 1024 * 1024))
    sys.stdout.buffer.write(b"\xff\xfe\n")
    print("on stderr", file=sys.stderr)
    print("said all")
    if change.record["gate"]:
        raise ValueError("no such gate")
"""

#: Prints lines in pieces, as `print` does, and fails; eight threads of a worker do at once.
SHOUTING = """
import sys
from typing import Any
from triggerkit import Change, Retry, rows, task

@task(on=rows("public.items"), retry=Retry(max_attempts=1))
def shout(change: Change[dict[str, Any]]) -> None:
    row = change.record["id"]
    for number in range(200):
        print("line", number, "of", row)
        sys.stderr.write(f"error {number}")
        sys.stderr.write(f" of {row}\\n")
    raise ValueError(f"no more of {row}")
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[SmallProject]:
    project = SmallProject(tmp_path)
    (tmp_path / "tasks" / "note.py").write_text(TALKATIVE)
    yield project
    project.dev.close()


@pytest.fixture
def terminal(project: SmallProject) -> Iterator[Callable[..., Terminal]]:
    """Starts `dev` on a terminal with options and settings."""
    terminals: list[Terminal] = []

    def start(*options: str, **settings: str) -> Terminal:
        arguments = ("triggerkit", "dev", "--port", "0", *options)
        terminals.append(Terminal(project.folder, *arguments, settings=settings))
        terminals[-1].wait_for("ready in ")
        return terminals[-1]

    yield start
    for one in terminals:
        one.close()


def test_json_has_one_object_a_line_whatever_the_project_prints(project: SmallProject) -> None:
    project.dev.start()  # which reads each line as JSON
    project.insert()
    eventually(lambda: project.said("said all"), 20, "the task's output")
    eventually(lambda: project.events("run", status="completed"), 10, "the run")
    pid = project.pid_of("worker")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: project.events("died", process="worker"), 10, "the worker's end")
    assert project.dev.interrupt() == 0
    printed = [line["message"] for line in project.events("output", process="worker")]
    assert [line for line in printed if "not json" in line or "stderr" in line or "ready" in line]
    assert any("left out" in line for line in printed)
    assert len(project.events("ready")) == 1
    assert (project.folder / "dev.stderr").read_text() == ""


def test_a_backfill_is_told_only_when_it_moved(project: SmallProject) -> None:
    project.write_task("first")
    task = project.folder / "tasks" / "note.py"
    task.write_text(task.read_text().replace("changes", "rows"))
    project.dev.start()
    project.dev.interrupt()
    project.dev.start()
    project.output_of_new_row()
    project.dev.interrupt()
    told = [tuple(line.items()) for line in project.events("backfill")]
    assert len(told) == len(set(told))


def test_json_tells_of_an_error_that_ends_it(project: SmallProject) -> None:
    (project.folder / "prepare.py").write_text("import nothing_like_this\n")
    with pytest.raises(AssertionError):
        project.dev.start()
    assert project.said("nothing_like_this")
    assert project.said("apply failed")


def test_a_terminal_has_colours(terminal: Callable[..., Terminal]) -> None:
    shown = terminal()
    assert shown.interrupt() == 0
    assert f"{ESCAPE}[1;32mready" in shown.shown


def test_no_color_means_no_escape_sequence(
    project: SmallProject, terminal: Callable[..., Terminal]
) -> None:
    shown = terminal(NO_COLOR="1")
    project.insert(gate=Path("nowhere"))
    shown.wait_for("no such gate")
    project.insert()
    shown.wait_for("completed in")
    assert re.search(r"→ POST /api/talk 200 in \d+ ms, 1 change\r?\n", shown.shown)
    assert shown.interrupt() == 0
    assert ESCAPE not in shown.shown


def test_quiet_shows_ready_and_what_fails(
    project: SmallProject, terminal: Callable[..., Terminal]
) -> None:
    shown = terminal("--quiet", NO_COLOR="1")
    project.insert()
    project.insert(gate=Path("nowhere"))
    shown.wait_for("no such gate")
    assert shown.interrupt() == 0
    lines = shown.shown.splitlines()
    assert re.fullmatch(r"ready in \d+ ms", lines[0])
    assert re.match(r"\d\d:\d\d:\d\d ✗ talk .* failed in \d+", lines[1])
    assert lines[-1] == "ValueError: no such gate"


def test_quiet_json_has_ready_and_what_fails(project: SmallProject) -> None:
    project.dev = DevProcess(project.folder, "--quiet")
    project.dev.start()
    project.insert(gate=Path("nowhere"))
    eventually(lambda: project.events("run", status="failed"), 20, "the failed run")
    assert project.dev.interrupt() == 0
    assert [line["event"] for line in project.dev.lines] == ["ready", "run"]


def test_lines_of_runs_that_print_at_once_and_our_own_arrive_whole(project: SmallProject) -> None:
    (project.folder / "tasks" / "note.py").write_text(SHOUTING)
    project.dev.start()
    rows = project.insert(64)
    eventually(lambda: len(project.events("run", status="failed")) == len(rows), 40, "all runs")
    assert project.dev.interrupt() == 0
    failed = project.events("run", status="failed")
    assert sorted(line["error"]["message"] for line in failed) == sorted(
        f"no more of {row}" for row in rows
    )
    printed = [
        (line["run"], line["message"]) for line in project.events("output", process="worker")
    ]
    expected = [
        (line["run"], f"{word} {number} of {line['error']['message'].split()[-1]}")
        for line in failed
        for number in range(200)
        for word in ("line", "error")
    ]
    assert sorted(printed) == sorted(expected)
