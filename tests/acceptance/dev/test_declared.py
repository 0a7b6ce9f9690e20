"""Queue limits and schedules under `dev`: made when it starts, and with each reload."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.project import eventually
from tests.acceptance.small import SmallProject

TASKS = """
from triggerkit import Queue, task

@task(queue=Queue("mail", concurrency={limit}), schedule="30 6 * * *")
def report() -> None: ...
"""


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallProject]:
    project = SmallProject(tmp_path_factory.mktemp("declared"))
    yield project
    project.dev.close()


def test_dev_makes_what_the_code_declares_on_start_and_reload(project: SmallProject) -> None:
    file = project.folder / "tasks" / "report.py"
    file.write_text(TASKS.format(limit=2))
    project.dev.start()
    assert project.said("created limits of queue mail")
    assert project.said("created schedule report")
    assert not project.said("not as the code declares it")

    def limits() -> list[object]:
        with project.connect() as connection:
            query = "SELECT concurrency FROM triggerkit.queues WHERE name = 'mail'"
            return [row[0] for row in connection.execute(query).fetchall()]

    assert limits() == [2]
    file.write_text(TASKS.format(limit=3))
    eventually(lambda: limits() == [3], 30, "the new limit")
    file.unlink()
    eventually(lambda: project.said("deleted schedule report"), 30, "the schedule's end")
    with project.connect() as connection:
        assert connection.execute("SELECT FROM triggerkit.schedules").fetchall() == []
    assert limits() == [None]
    assert project.dev.interrupt() == 0
