"""`triggerkit dev` as a companion: new code takes over, and what dies is started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.acceptance.project import eventually
from tests.acceptance.small import SmallProject


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallProject]:
    project = SmallProject(tmp_path_factory.mktemp("dev"))
    project.dev.start()
    yield project
    project.dev.close()


def test_changed_code_takes_over(project: SmallProject) -> None:
    assert project.output_of_new_row() == "first"
    project.write_task("second")
    eventually(lambda: project.said("reloaded in"), 20, "a reload")
    assert project.output_of_new_row() == "second"


def test_code_that_cannot_be_loaded_keeps_the_old_and_shows_the_line(project: SmallProject) -> None:
    before = project.output_of_new_row()
    (project.folder / "tasks" / "broken.py").write_text("def broken(:\n")
    eventually(lambda: project.said("the old goes on"), 20, "the refusal of the new code")
    assert project.said("broken.py:1")
    assert project.output_of_new_row() == before
    (project.folder / "tasks" / "broken.py").unlink()
    project.write_task("third")
    eventually(lambda: project.output_of_new_row() == "third", 30, "the mended code")


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
