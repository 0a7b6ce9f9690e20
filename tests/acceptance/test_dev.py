"""`triggerkit dev` as a companion: new code takes over, and what dies is started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import orjson
import psycopg
import pytest

from tests.acceptance.project import DevProcess, eventually, run_command

TASK = """
from typing import Any
from triggerkit import Change, changes, task

@task(on=changes("public.items"))
def note(change: Change[dict[str, Any]]) -> str:
    return "{version}"
"""

SETUP = """
import os
import psycopg

with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS items (id bigint PRIMARY KEY)")
"""


class Project:
    """A project of one task, with `dev` running on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dev = DevProcess(folder)
        self._next_id = 0
        self._database_url = ""
        (folder / "tasks").mkdir()
        (folder / "tasks" / "__init__.py").touch()
        (folder / "prepare.py").write_text(SETUP)
        (folder / "triggerkit.toml").write_text('tasks = ["tasks"]\nsetup = "prepare"\n')
        self.write_task("first")

    def write_task(self, version: str) -> None:
        """Make the task return `version`."""
        (self.folder / "tasks" / "note.py").write_text(TASK.replace("{version}", version))

    def output_of_new_row(self, deadline_s: float = 30) -> str:
        """Insert a row and wait for what its run returned."""
        self._next_id += 1
        row_id = self._next_id

        def output() -> str:
            try:
                with psycopg.connect(self.database_url(), connect_timeout=2) as connection:
                    row = connection.execute(
                        "SELECT output FROM triggerkit.runs WHERE status = 'completed' "
                        "AND source ->> 'key' = %s",
                        [f'public.items:["{row_id}"]'],
                    ).fetchone()
            except psycopg.OperationalError:
                return ""
            return str(orjson.loads(row[0])) if row else ""

        with psycopg.connect(self.database_url()) as connection:
            connection.execute("INSERT INTO items VALUES (%s)", [row_id])
        return eventually(output, deadline_s, f"a completed run of row {row_id}")

    def database_url(self) -> str:
        self._database_url = self._database_url or str(self.status()["database_url"])
        return self._database_url

    def status(self) -> dict[str, object]:
        found = run_command(self.folder, "triggerkit", "status", "--json")
        status: dict[str, object] = orjson.loads(found.stdout)
        return status

    def pid_of(self, name: str) -> int:
        processes = self.status()["processes"]
        assert isinstance(processes, list)
        return next(int(p["pid"]) for p in processes if p["name"] == name)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("dev"))
    project.dev.start()
    yield project
    project.dev.close()


def said(project: Project, text: str) -> bool:
    return any(text in str(line.get("message", "")) for line in project.dev.lines)


def test_changed_code_takes_over(project: Project) -> None:
    assert project.output_of_new_row() == "first"
    project.write_task("second")
    eventually(lambda: said(project, "reloaded in"), 20, "a reload")
    assert project.output_of_new_row() == "second"


def test_code_that_cannot_be_loaded_keeps_the_old_and_shows_the_line(project: Project) -> None:
    before = project.output_of_new_row()
    (project.folder / "tasks" / "broken.py").write_text("def broken(:\n")
    eventually(lambda: said(project, "the old goes on"), 20, "the refusal of the new code")
    assert said(project, "broken.py:1")
    assert project.output_of_new_row() == before
    (project.folder / "tasks" / "broken.py").unlink()
    project.write_task("third")
    eventually(lambda: project.output_of_new_row() == "third", 30, "the mended code")


@pytest.mark.parametrize("name", ["stream", "serve", "worker", "postgres", "redis"])
def test_a_killed_process_is_started_again_and_rows_go_on(project: Project, name: str) -> None:
    pid = project.pid_of(name)
    os.kill(pid, signal.SIGKILL)
    eventually(
        lambda: (
            said(project, f"{name} is back")
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
