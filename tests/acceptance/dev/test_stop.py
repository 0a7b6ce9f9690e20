"""Ctrl-C: what runs is finished, or cut off by a second one and executed by the next start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import family, running
from tests.acceptance.project import eventually
from tests.acceptance.small import SmallProject


@pytest.fixture
def project(tmp_path: Path) -> Iterator[SmallProject]:
    project = SmallProject(tmp_path)
    project.dev.start()
    yield project
    project.dev.close()


def hold(project: SmallProject, count: int) -> Path:
    """Have `count` runs wait for the file that is returned."""
    gate = project.folder / "gate"
    for row_id in project.insert(count, gate):
        begun = Path(f"{gate}.{row_id}.begun")
        eventually(begun.exists, 10, f"the run of {row_id}")
    return gate


def test_a_stop_finishes_what_runs_and_says_how_much(project: SmallProject) -> None:
    gate = hold(project, 3)
    project.dev.press_ctrl_c()
    [said] = eventually(lambda: project.events("stopping"), 5, "word of the stop")
    assert said["executing"] == 3
    assert said["message"] == "finishing 3 runs; Ctrl-C again to force"
    gate.touch()
    assert project.dev.wait(15) == 0
    finished = project.events("run", status="completed")
    assert len(finished) == 3
    project.dev.start()
    assert project.output_of_new_row() == "first"
    project.dev.press_ctrl_c()
    [said] = eventually(lambda: project.events("stopping"), 5, "word of the stop")
    assert (said["executing"], said["message"]) == (0, "stopping; nothing is executing")
    assert project.dev.wait(15) == 0


def test_a_second_ctrl_c_cuts_off_what_the_next_start_executes(project: SmallProject) -> None:
    gate = hold(project, 3)
    processes = family(project.dev.pid)
    project.dev.press_ctrl_c()
    eventually(lambda: project.events("stopping"), 5, "word of the stop")
    project.dev.press_ctrl_c()
    project.dev.wait(5)
    assert project.said("3 runs cut off")
    eventually(lambda: not running(processes), 5, "the end of every process")
    gate.touch()
    project.dev.start()
    # Well before the lease of the worker that was killed would have been over.
    eventually(lambda: len(project.outputs([1, 2, 3])) == 3, 6, "the runs that were cut off")
