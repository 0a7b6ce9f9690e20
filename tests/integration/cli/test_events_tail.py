"""`events tail` follows topics, with filters, as lines for people and for programs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import orjson
import pytest

from tests.acceptance.project import clean_environment
from tests.integration.events.written import TABLE, declare_events, one, until
from tests.integration.pipeline import execute, run_until_canceled
from triggerkit.settings import Settings


@pytest.fixture
def source(settings: Settings) -> Settings:
    asyncio.run(execute(settings, TABLE, "CREATE TABLE notes (id int PRIMARY KEY, text text)"))
    asyncio.run(declare_events(settings, tables=["posts", "notes"], database="app"))
    return settings


def written(settings: Settings, *statements: str) -> None:
    """Have the statements captured."""

    async def scenario() -> None:
        async with run_until_canceled(settings):
            before = one(settings, "SELECT count(*) FROM triggerkit.events")
            await execute(settings, *statements)
            await until(
                lambda: one(
                    settings,
                    "SELECT count(*) >= %s FROM triggerkit.events",
                    before + len(statements),
                ),
                "captured change",
            )

    asyncio.run(scenario())


@contextmanager
def tailing(settings: Settings, folder: Path, *arguments: str) -> Iterator[IO[str]]:
    """The lines that the command prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "triggerkit", "events", "tail", *arguments],
        cwd=folder,
        env={**clean_environment(), **settings.environment(), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout
    finally:
        process.kill()
        process.communicate()


def test_it_goes_on_as_events_come(source: Settings, tmp_path: Path) -> None:
    written(source, "INSERT INTO posts VALUES (1, 'a')")
    arguments = ("triggerkit.app.posts", "--from", "earliest", "--json")
    with tailing(source, tmp_path, *arguments) as lines:
        assert orjson.loads(lines.readline())["key"] == "1"
        written(source, "UPDATE posts SET title = 'b'")
        message = orjson.loads(lines.readline())
        assert orjson.loads(message["value"])["changes"] == {"title": "a"}


def test_filters_and_lines_for_people(source: Settings, tmp_path: Path) -> None:
    written(
        source,
        "INSERT INTO posts VALUES (1, 'a')",
        "INSERT INTO notes VALUES (7, 'n')",
        "INSERT INTO posts VALUES (2, E'\\x1b[31mred')",
        "DELETE FROM posts WHERE id = 1",
    )
    with tailing(source, tmp_path, "--from", "10m", "--table", "notes") as lines:
        assert "triggerkit.app.notes  inserted  7" in lines.readline()
    with tailing(source, tmp_path, "--from", "earliest", "--action", "deleted") as lines:
        assert "deleted  1" in lines.readline()
    with tailing(source, tmp_path, "--from", "earliest", "--key", "2") as lines:
        line = lines.readline()
        assert "inserted  2" in line
        assert "\x1b" not in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["triggerkit.app.post"], "did you mean triggerkit.app.posts"),
        (["--from", "yesterday"], "--from 'yesterday' is not understood"),
        (["--table", "others"], "there is no such topic"),
        (["triggerkit.app.posts", "--from", "999999"], "out of range"),
    ],
)
def test_what_cannot_be_followed_is_told(
    source: Settings, tmp_path: Path, arguments: list[str], said: str
) -> None:
    with tailing(source, tmp_path, *arguments) as lines:
        assert said in " ".join(lines.read().split())


def test_a_deleted_row_is_that_of_the_log_where_the_wal_does_not_carry_it(
    source: Settings, tmp_path: Path
) -> None:
    written(source, "INSERT INTO notes VALUES (1, 'kept')", "DELETE FROM notes")
    arguments = ("--from", "earliest", "--action", "deleted", "--json")
    with tailing(source, tmp_path, *arguments) as lines:
        value = orjson.loads(orjson.loads(lines.readline())["value"])
    assert value["data"] == {"id": 1, "text": "kept"}
