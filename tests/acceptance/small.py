"""A project of one task on one table, whose `dev` brings Postgres and Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import psycopg

from tests.acceptance.project import DevProcess, eventually, run_command

#: Returns its version. A row may name a file for which its run waits, once it has made `.begun`.
TASK = """
import time
from pathlib import Path
from typing import Any
from triggerkit import Change, changes, task

@task(on=changes("public.items"))
def note(change: Change[dict[str, Any]]) -> str:
    gate = change.record["gate"]
    if gate:
        Path(f"{gate}.{change.record['id']}.begun").touch()
        while not Path(gate).exists():
            time.sleep(0.01)
    return "{version}"
"""

SETUP = """
import os
import psycopg

with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS items (id bigserial PRIMARY KEY, gate text)")
"""


class SmallProject:
    """The project, and its `dev` once that was started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dev = DevProcess(folder)
        self._database_url = ""
        (folder / "tasks").mkdir()
        (folder / "tasks" / "__init__.py").touch()
        (folder / "prepare.py").write_text(SETUP)
        (folder / "triggerkit.toml").write_text('tasks = ["tasks"]\nsetup = "prepare"\n')
        self.write_task("first")

    def write_task(self, version: str) -> None:
        """Make the task return `version`."""
        (self.folder / "tasks" / "note.py").write_text(TASK.replace("{version}", version))

    def insert(self, count: int = 1, gate: Path | None = None) -> list[int]:
        """Insert rows, whose runs wait for `gate`; returns their ids."""
        with self.connect() as connection:
            inserted = connection.execute(
                "INSERT INTO items (gate) SELECT %s FROM generate_series(1, %s) RETURNING id",
                [None if gate is None else str(gate), count],
            )
            return [row_id for (row_id,) in inserted.fetchall()]

    def outputs(self, row_ids: list[int]) -> list[str]:
        """What the completed runs of the rows returned; none while Postgres is away."""
        keys = [f'public.items:["{row_id}"]' for row_id in row_ids]
        try:
            with self.connect() as connection:
                rows = connection.execute(
                    "SELECT output FROM triggerkit.runs WHERE status = 'completed' "
                    "AND source ->> 'key' = ANY (%s)",
                    [keys],
                ).fetchall()
        except psycopg.OperationalError:
            return []
        return [str(orjson.loads(output)) for (output,) in rows]

    def output_of_new_row(self, deadline_s: float = 30) -> str:
        """Insert a row and wait for what its run returned."""
        rows = self.insert()
        found = eventually(lambda: self.outputs(rows), deadline_s, f"a completed run of {rows}")
        return found[0]

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection to the project's database."""
        self._database_url = self._database_url or str(self.status()["database_url"])
        return psycopg.connect(self._database_url, autocommit=True, connect_timeout=2)

    def status(self) -> dict[str, Any]:
        """What `triggerkit status --json` prints."""
        found = run_command(self.folder, "triggerkit", "status", "--json")
        status: dict[str, Any] = orjson.loads(found.stdout)
        return status

    def pid_of(self, name: str) -> int | None:
        """The id of a process of `dev`, None while it is not running."""
        pids: list[int | None] = [p["pid"] for p in self.status()["processes"] if p["name"] == name]
        return pids[0]

    def said(self, text: str, since: int = 0) -> bool:
        """Whether a message of `dev` has `text`, from its line `since` on."""
        return any(text in str(line.get("message", "")) for line in self.dev.lines[since:])

    def events(self, event: str, **facts: Any) -> list[dict[str, Any]]:
        """The lines of `dev` of one event, with these facts."""
        wanted = {"event": event, **facts}.items()
        return [line for line in list(self.dev.lines) if wanted <= line.items()]
