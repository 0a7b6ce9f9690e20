"""A consumer of the development database goes to production by the commands of docs/deploy.md."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from tests import ROOT
from tests.acceptance.project import run_command
from tests.servers import Servers
from triggerkit.settings import Settings

TABLE = """
CREATE TABLE public.posts (id bigint PRIMARY KEY, title text, updated_at timestamptz);
INSERT INTO public.posts VALUES (1, 'a title', now())
"""


def commands(page: str, begin: str) -> list[str]:
    """The commands of the first block of a page's shell that begins so."""
    text = (ROOT / "docs" / page).read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (found,) = [block for block in blocks if block.startswith(begin)]
    lines: list[str] = found.splitlines()
    return lines


class Place:
    """A database with the table, and the project's commands with its settings."""

    def __init__(self, folder: Path, settings: Settings, url: str) -> None:
        self.folder = folder
        self.settings = {**settings.environment(), "DATABASE_URL": url}
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(TABLE)

    def type(self, command: str) -> str:
        """Type a command; what it prints."""
        program, *arguments = shlex.split(command)
        assert program == "triggerkit"
        into = arguments[-1] if ">>" in arguments else None
        arguments = arguments[:-2] if into else arguments
        done = run_command(self.folder, program, *arguments, settings=self.settings)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if into:
            with (self.folder / into).open("a") as file:
                file.write(done.stdout)
        return done.stdout

    def shown(self) -> Any:
        return orjson.loads(self.type("triggerkit consumers show posts_push_consumer --json"))


@pytest.fixture
def production(tmp_path: Path, servers: Servers, settings: Settings) -> Iterator[Place]:
    url = servers.new_database()
    yield Place(tmp_path, settings, url)
    servers.drop_database(url)


@pytest.mark.timeout(180)
def test_the_guide_takes_a_consumer_to_production(
    tmp_path: Path, settings: Settings, production: Place
) -> None:
    (tmp_path / "triggerkit.toml").write_text("")
    (tmp_path / "tasks.py").write_text("")
    development = Place(tmp_path, settings, settings.source_dsn)
    for command in commands("consumers.md", "triggerkit endpoints create local_endpoint"):
        development.type(command)
    filters = orjson.dumps([["title", "not_null"], ["id", "in", [1, 2]]]).decode()
    annotations = orjson.dumps({"team": "search"}).decode()
    edited = f"--set batch_size=50 --set 'filters={filters}' --set 'annotations={annotations}'"
    development.type(f"triggerkit consumers edit posts_push_consumer {edited}")
    before = development.shown()
    write, *rest = commands("deploy.md", "triggerkit consumers show posts_push_consumer")
    development.type(write)
    for command in rest:
        production.type(command)
    made = production.shown()
    assert made["definition"] == before["definition"]
    assert made["endpoint"] == before["endpoint"]
    assert made["declared_in"] == "file"
    assert "nothing to change" in production.type("triggerkit plan")
    # The file declares it here, too, now: it keeps its place.
    development.type("triggerkit apply")
    after = development.shown()
    assert after["declared_in"] == "file"
    assert after["cursors"] == before["cursors"]
    assert after["definition"] == before["definition"]
