"""docs/deploy.md, followed literally: its commands, in their order, on an empty server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.project import ROOT, clean_environment, eventually
from tests.ports import free_port
from tests.servers import Background
from triggerkit.embedded.postgres import EmbeddedPostgres
from triggerkit.embedded.programs import postgres_folder

GUIDE = (ROOT / "docs" / "deploy.md").read_text()

_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)

#: A URL of the guide's server: the role, its password, the database.
_URL = re.compile(r"postgresql://(\w+)(?::([\w-]+))?@db\.example\.com/(\w+)")


def section(title: str) -> list[str]:
    """The shell blocks of a section, subsections left out."""
    _, _, rest = GUIDE.partition(f"\n## {title}\n")
    assert rest, title
    return _BLOCK.findall(re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0])


class Reader:
    """Somebody who types what the guide says, and has another server than it."""

    def __init__(self, folder: Path, server: EmbeddedPostgres, redis_url: str) -> None:
        self.folder = folder
        self._socket = re.search(r"host=([^&]+)", server.url)
        self._redis_url = redis_url
        programs = folder / "bin"
        programs.mkdir()
        for name, words in (("python", ""), ("triggerkit", "-m triggerkit ")):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
            program.chmod(0o755)
        self._environment = {
            **clean_environment(),
            "PATH": f"{programs}:{postgres_folder(None) / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "TRIGGERKIT_PORT": str(free_port()),
        }
        self.lasting: list[subprocess.Popen[bytes]] = []

    def url(self, role: str, database: str) -> str:
        assert self._socket is not None
        return f"postgresql://{role}@/{database}?host={self._socket[1]}"

    def type(self, block: str) -> str:
        """Type the lines of a block; what it printed. Those that end in & go on."""
        text = _URL.sub(lambda found: self._url(found), block)
        text = text.replace("redis://redis.example.com:6379/0", self._redis_url)
        lasting = [line for line in text.splitlines() if line.endswith(" &")]
        script = "\n".join(line for line in text.splitlines() if line not in lasting)
        printed = self._run(f"set -e\n{script}\npwd > {self.folder}/where\n") if script else ""
        for line in lasting:
            log = (self._place / f"{line.split()[1]}.log").open("wb")
            process = subprocess.Popen(
                ["sh", "-c", f"exec {line.removesuffix(' &')}"],
                cwd=self._place, env=self._environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
            self.lasting.append(process)
        return printed

    def said(self) -> str:
        """What the processes said."""
        return "\n".join(path.read_text()[-1500:] for path in self._place.glob("*.log"))

    def stop(self) -> None:
        """End the processes, as a supervisor does."""
        for process in self.lasting:
            process.terminate()
        for process in self.lasting:
            process.wait(60)
        self.lasting.clear()

    @property
    def _place(self) -> Path:
        where = self.folder / "where"
        return Path(where.read_text().strip()) if where.exists() else self.folder

    def _url(self, found: re.Match[str]) -> str:
        # The tests' server asks nobody for a password; in a shell & would end the command.
        return self.url(found[1], found[3])

    def _run(self, script: str) -> str:
        done = subprocess.run(
            ["sh", "-c", script], cwd=self._place, env=self._environment, capture_output=True,
            text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}\n{self.said()}"
        return done.stdout


@pytest.fixture
def reader(tmp_path: Path, redis_url: str) -> Iterator[Reader]:
    background = Background()
    server = EmbeddedPostgres(tmp_path / "server")
    background.run(server.start())
    folder = tmp_path / "reader"
    folder.mkdir()
    reader = Reader(folder, server, redis_url)
    yield reader
    reader.stop()
    background.run(server.stop())


def completed(reader: Reader) -> int:
    with psycopg.connect(reader.url("postgres", "shop"), autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM triggerkit.runs WHERE status = 'completed'"
        ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.timeout(300)
def test_the_guide_leads_from_an_empty_database_to_a_run_and_back_from_a_backup(
    reader: Reader,
) -> None:
    *before, start, last = section("Step by step")
    for block in before:
        reader.type(block)
    reader.type(start)
    eventually(lambda: reader.said().count(" ready") >= 3, 60, reader.said)
    printed = reader.type(last)
    assert "✗" not in printed
    assert re.findall(r"^! (.*?):", printed, re.M) == ["pgvector"], "the roles may do no more"
    eventually(lambda: completed(reader) == 1, 30, reader.said)

    # A dump that is restored, as onto another server: there is no slot.
    dump, restore = section("Backup and restore")
    reader.type(dump)
    reader.stop()
    with psycopg.connect(reader.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE database = 'shop'"
        )
        connection.execute("DROP DATABASE shop")
    printed = reader.type(restore)
    assert "backfill" in printed
    reader.type("\n".join(line for line in start.splitlines() if line.endswith(" &")))
    eventually(lambda: reader.said().count(" ready") >= 3, 60, reader.said)
    with psycopg.connect(reader.url("postgres", "shop"), autocommit=True) as connection:
        connection.execute("INSERT INTO orders (customer) VALUES ('Grace')")
    # Ada's row once more, by the backfill, and Grace's.
    eventually(lambda: completed(reader) >= 3, 60, reader.said)


@pytest.mark.timeout(200)
def test_the_roles_may_do_no_more_than_they_have_to(reader: Reader) -> None:
    for block in section("Step by step")[:2]:
        reader.type(block)
    capture, state = (
        reader.url("triggerkit_capture", "shop"),
        reader.url("triggerkit_state", "shop"),
    )
    for url, statement in (
        (capture, "INSERT INTO public.orders (customer) VALUES ('Eve')"),
        (capture, "DELETE FROM public.orders"),
        (capture, "CREATE TABLE public.own (id int)"),
        (capture, "CREATE SCHEMA own"),
        (capture, "CREATE TABLE triggerkit.own (id int)"),
        (capture, "CREATE ROLE own"),
        (state, "SELECT * FROM public.orders"),
        (state, "CREATE TABLE public.own (id int)"),
        (state, "CREATE SCHEMA own"),
        (state, "SELECT pg_create_logical_replication_slot('own', 'pgoutput')"),
    ):
        with (
            psycopg.connect(url) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(statement.encode())
    with psycopg.connect(reader.url("postgres", "shop"), autocommit=True) as connection:
        facts = connection.execute(
            "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication "
            "FROM pg_roles WHERE rolname LIKE 'triggerkit_%' ORDER BY rolname"
        ).fetchall()
    assert facts == [
        ("triggerkit_capture", False, False, False, False, True),
        ("triggerkit_state", False, False, False, False, False),
    ]


@pytest.mark.timeout(200)
def test_the_roles_are_made_twice_and_follow_what_is_declared(reader: Reader) -> None:
    blocks = section("Step by step")
    for block in blocks[:2]:
        reader.type(block)
    reader.type(blocks[1])
    project = reader.folder / "shop"
    tasks = project / "tasks.py"
    tasks.write_text(tasks.read_text().replace('rows("public.orders"', 'rows("public.gone"'))
    with pytest.raises(AssertionError, match=r"table public\.gone does not exist"):
        reader.type(blocks[1])
    with psycopg.connect(reader.url("postgres", "shop"), autocommit=True) as connection:
        connection.execute("CREATE TABLE public.gone (id int PRIMARY KEY)")
        reader.type(blocks[1])
        published = connection.execute(
            "SELECT tablename FROM pg_publication_tables ORDER BY 1"
        ).fetchall()
    assert published == [("gone",), ("orders",)]
