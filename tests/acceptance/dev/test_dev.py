"""`triggerkit dev` as a companion: new code takes over, and what dies is started again."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.processes import parent_of
from tests.acceptance.project import eventually
from tests.acceptance.small import SmallProject


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallProject]:
    project = SmallProject(tmp_path_factory.mktemp("dev"))
    project.dev.start()
    yield project
    project.dev.close()


#: Seconds from the save to the new code on a machine with time, and more for one without.
PROMISED_S = 1.0
SLACK_S = 3.0

#: How code may fail at its import, and what is shown of it.
BROKEN = {
    "syntax": ("import os\n\ndef broken(:\n", 3, "def broken(:", "SyntaxError"),
    "own": ("value = {}\nvalue['lacks']\n", 2, "value['lacks']", "KeyError"),
    "library": ("import json\n\njson.loads('{')\n", 3, "json.loads('{')", "JSONDecodeError"),
}


def test_changed_code_takes_over(project: SmallProject) -> None:
    assert project.output_of_new_row() == "first"
    for version in ("second", "third"):
        since = len(project.dev.lines)
        saved_at = time.monotonic()
        project.write_task(version)
        eventually(lambda since=since: project.said("reloaded in", since), 20, "a reload")  # type: ignore[misc]
        took_s = time.monotonic() - saved_at
        [said] = [line["message"] for line in project.dev.lines[since:] if "reloaded" in str(line)]
        print(f"{took_s:.2f} s from the save: {said}")
        assert took_s < PROMISED_S + SLACK_S
        assert project.output_of_new_row() == version


@pytest.mark.parametrize("how", BROKEN)
def test_code_that_cannot_be_loaded_keeps_the_old_and_shows_the_line(
    project: SmallProject, how: str
) -> None:
    before = project.output_of_new_row()
    code, number, line, error = BROKEN[how]
    broken = project.folder / "tasks" / f"broken_{how}.py"
    since = len(project.dev.lines)
    broken.write_text(code)
    eventually(lambda: project.said("the old goes on", since), 20, "the refusal of the new code")
    told = [str(line["message"]) for line in project.dev.lines[since:] if "broken_" in str(line)]
    told = [text for text in told if not text.startswith("changed")]
    assert len(told) == 1, told
    assert f"{broken}:{number}: {line}\n  {error}: " in told[0]
    assert "Traceback" not in told[0]
    assert project.output_of_new_row() == before
    # One change after the other, so that no reload is still at it when the next test changes code.
    since = len(project.dev.lines)
    project.write_task(f"mended {how}")
    eventually(lambda: project.said("the old goes on", since), 20, "another refusal")
    since = len(project.dev.lines)
    broken.unlink()
    eventually(lambda: project.said("reloaded in", since), 20, "the reload of the mended code")
    assert project.output_of_new_row() == f"mended {how}"


def test_an_app_that_cannot_be_loaded_keeps_the_old_tasks_too(project: SmallProject) -> None:
    before = project.output_of_new_row()
    file = project.folder / "triggerkit.toml"
    text = file.read_text()
    since = len(project.dev.lines)
    file.write_text(f'app = "nowhere:app"\n{text}')
    project.write_task("not to be seen")
    eventually(lambda: project.said("the old goes on", since), 20, "the refusal of the new code")
    assert project.output_of_new_row() == before
    since = len(project.dev.lines)
    file.write_text(text)
    eventually(lambda: project.said("reloaded in", since), 20, "the reload of the mended file")
    assert project.output_of_new_row() == "not to be seen"


@pytest.mark.parametrize("name", ["stream", "serve", "worker", "postgres", "redis"])
def test_a_killed_process_is_started_again_and_rows_go_on(project: SmallProject, name: str) -> None:
    pid = project.pid_of(name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(
        lambda: (
            project.said(f"{name} is back")
            or any(
                line.get("event") == "died" and line["process"] == name
                for line in project.dev.lines
            )
        ),
        20,
        f"word of the end of {name}",
    )
    eventually(lambda: project.pid_of(name) not in (pid, None), 20, f"a new {name}")
    assert project.output_of_new_row()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_processes_are_started_when_what_forks_them_is_gone(project: SmallProject) -> None:
    served = project.pid_of("serve")
    forks = parent_of(served or 0)
    assert forks not in (None, 1, project.dev.pid)
    os.kill(forks or 0, signal.SIGKILL)

    def are_children_of_dev() -> bool:
        pids = [project.pid_of(name) for name in ("stream", "serve", "worker")]
        return all(pid and parent_of(pid) == project.dev.pid for pid in pids)

    eventually(are_children_of_dev, 30, "processes that were started")
    assert project.output_of_new_row()
