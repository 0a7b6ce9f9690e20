"""Projects to measure: a folder with one task, and the servers it uses."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from bench.processes import Program
from triggerkit.embedded.postgres import EmbeddedPostgres
from triggerkit.embedded.redis import EmbeddedRedis
from triggerkit.settings import running_dev

ROOT = Path(__file__).parents[1]

#: Runs before the first start, where the database is `dev`'s own.
_SETUP = """\
import os
import psycopg
with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
    connection.execute({sql!r})
"""

Connection = psycopg.Connection[tuple[Any, ...]]


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder that is gone at the end; as root, the embedded Postgres's user can reach it."""
    folder = Path(tempfile.mkdtemp(prefix="triggerkit-bench-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_project(folder: Path, tasks: str, schema: str) -> None:
    """Make `folder` a project with these tasks, whose tables `schema` makes."""
    folder.mkdir(exist_ok=True)
    (folder / "triggerkit.toml").write_text('tasks = ["measured"]\nsetup = "schema"\n')
    (folder / "measured.py").write_text(tasks)
    (folder / "schema.py").write_text(_SETUP.format(sql=schema))


def dev(folder: Path) -> Program:
    """`triggerkit dev` with embedded servers, quiet, on any free port."""
    return Program(folder, ["triggerkit", "dev", "--quiet", "--port", "0"], {})


def dev_database(folder: Path) -> str:
    """The connection string of the database of the `dev` that runs in `folder`."""
    running = running_dev(folder)
    assert running is not None
    return str(running["env"]["DATABASE_URL"])


def connect(dsn: str) -> Connection:
    """A connection in autocommit mode, as a client of the source database has it."""
    return psycopg.connect(dsn, autocommit=True)


def one(connection: Connection, query: str, *parameters: object) -> Any:
    """The first column of the first row."""
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]


@contextmanager
def servers(folder: Path, *, postgres: bool = True) -> Iterator[dict[str, str]]:
    """Embedded servers that outlive the measured processes: the settings that name them."""
    database, redis = EmbeddedPostgres(folder) if postgres else None, EmbeddedRedis(folder)
    with asyncio.Runner() as runner:
        try:
            runner.run(redis.start())
            settings = {"REDIS_URL": redis.url}
            if database is not None:
                runner.run(database.start())
                settings["DATABASE_URL"] = database.url
            yield settings
        finally:
            runner.run(redis.stop())
            if database is not None:
                runner.run(database.stop())
