"""A primary and its standby, and what a project of theirs is asked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import psycopg
import pytest

from tests import ROOT
from tests.acceptance.project import eventually
from tests.acceptance.running_system import System
from tests.capture.rig.programs import Unavailable
from tests.capture.rig.server import Server
from triggerkit.settings import Settings

PAGE = (ROOT / "docs" / "providers" / "self-hosted.md").read_text()

#: The standby's name: of its slot at the primary, and of its connection there.
STANDBY = "first_standby"


@dataclass
class Pair:
    """A primary, and the standby that streams from it."""

    primary: Server
    standby: Server

    @property
    def url(self) -> str:
        """The URL of whichever of them is the primary."""
        hosts = ",".join(
            str(psycopg.conninfo.conninfo_to_dict(one.url())["host"])
            for one in (self.primary, self.standby)
        )
        return (
            f"postgresql://postgres@/postgres?host={quote(hosts, safe='/,')}"
            "&target_session_attrs=read-write"
        )

    def until_replayed(self) -> None:
        """Wait until the standby has all that the primary has."""
        end = ask(self.primary, "SELECT pg_current_wal_lsn()::text")
        eventually(
            lambda: ask(self.standby, f"SELECT pg_last_wal_replay_lsn() >= '{end}'"),
            30,
            "a standby that has all",
        )

    def slot(self, server: Server) -> dict[str, Any] | None:
        """The project's slot on a server."""
        found: dict[str, Any] | None = ask(
            server,
            "SELECT to_jsonb(s) FROM pg_replication_slots s "
            "WHERE slot_name = 'triggerkit_postgres'",
        )
        return found

    def fail_over(self) -> None:
        """Kill the primary and have the standby take over."""
        self.primary.kill()
        self.standby.take_the_lead()


@contextmanager
def running_pair(
    version: int, *, primary: dict[str, str] | None = None, standby: dict[str, str] | None = None
) -> Iterator[Pair]:
    """Start both, with these settings; the test is skipped where there are no programs."""
    leading = Server(version)
    try:
        leading.start(**(primary or {}))
    except Unavailable as reason:
        if os.environ.get("TRIGGERKIT_TEST_REQUIRE") == "all":
            pytest.fail(str(reason))
        pytest.skip(str(reason))
    following = None
    try:
        following = leading.standby(STANDBY, **(standby or {}))
        yield Pair(leading, following)
    finally:
        if following is not None:
            following.stop()
        leading.stop()


def guide(title: str) -> list[list[str]]:
    """The statements of each block of SQL of a section of the page on servers of one's own."""
    _, _, rest = PAGE.partition(f"\n## {title}\n")
    assert rest, title
    section = rest.partition("\n## ")[0]
    blocks = re.findall(r"^```sql\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    return [[line for line in block.splitlines() if line] for block in blocks]


def ask(server: Server, query: str, *parameters: object) -> Any:
    """The first column of the first row, None without a row."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        row = connection.execute(query.encode(), parameters or None).fetchone()
    return None if row is None else row[0]


def run(server: Server, *statements: str) -> None:
    """Run statements on a server."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def system_on(pair: Pair, folder: Path, settings: Settings, **more: str) -> System:
    """A project whose source they are; its state is elsewhere."""
    own = {"DATABASE_URL": pair.url, "TRIGGERKIT_STATE_URL": settings.state_dsn}
    return System(folder, {**settings.environment(), **own, **more})


def problems(system: System) -> dict[str, str]:
    """What is wrong with the source, by names; what is only advised is left out."""
    done = system.command("status", "--json")
    (database,) = orjson.loads(done.stdout)["databases"]
    found = [problem for problem in database["problems"] if problem["severity"] != "advice"]
    return {problem["name"]: problem["detail"] for problem in found}


def rows_with_runs(settings: Settings) -> set[int]:
    """The rows of the table `items` that had a run."""
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        keys = connection.execute(
            "SELECT DISTINCT source ->> 'key' FROM triggerkit.runs"
        ).fetchall()
    return {int(orjson.loads(key.partition(":")[2])[0]) for (key,) in keys if key}
