"""PgBouncer in front of the state: it must keep sessions, and whatever does not is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from tests.acceptance.project import run_command
from tests.acceptance.running_system import System
from tests.pgbouncer import pgbouncer
from tests.servers import Servers
from triggerkit.runs.session import by_index
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, connect_blocking, pinned, pool
from triggerkit.supervisor.checks import Check, run_checks

#: By default it refuses `options`, and this way it drops them without a word.
DROPPING = "ignore_startup_parameters = options,extra_float_digits"

REFUSED = "gives each transaction another session"


def through(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"triggerkit_state_url": SecretStr(url)})


def checks(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in asyncio.run(run_checks(settings, []))}


@pytest.mark.parametrize("more", ["", DROPPING], ids=["refusing", "dropping"])
def test_sessions_that_are_kept_have_all_our_settings(
    servers: Servers, tmp_path: Path, settings: Settings, more: str
) -> None:
    async def read(url: str) -> list[Any]:
        query = "SELECT current_setting('enable_seqscan'), current_setting('search_path')"
        async with await connect(url, "test") as alone, pool(url, "test", size=1) as several:
            found = await (await alone.execute(query)).fetchall()
            async with several.connection() as one:
                return [*found, *await (await one.execute(query)).fetchall()]

    with pgbouncer(servers, tmp_path, settings.state_dsn, "session", more) as url:
        own = by_index(url)
        with connect_blocking(pinned(own, "test")) as session:
            assert session.execute("SHOW enable_seqscan").fetchone() == ("off",)
        assert asyncio.run(read(own)) == [("off", "pg_catalog")] * 2
        found = checks(through(settings, url))
    assert [check for check in found.values() if check.failed] == []
    assert found["session of the state"].ok


def test_a_system_works_by_way_of_kept_sessions(
    servers: Servers, tmp_path: Path, settings: Settings
) -> None:
    with pgbouncer(servers, tmp_path, settings.state_dsn, "session") as url:
        given = {**settings.environment(), "TRIGGERKIT_STATE_URL": url}
        system = System(tmp_path, given)
        try:
            applied = system.command("apply")
            assert applied.returncode == 0, applied.stderr
            for name in ("serve", "worker", "stream"):
                system.start(name)
            system.be_well()
            system.execute("UPDATE public.items SET name = 'other'")
            system.mended("1")
        finally:
            system.stop_all()


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_sessions_that_are_shared_are_refused(
    servers: Servers, tmp_path: Path, settings: Settings, mode: str
) -> None:
    (tmp_path / "tasks.py").write_text("from triggerkit import task\n@task\ndef a() -> None: ...\n")
    with pgbouncer(servers, tmp_path, settings.state_dsn, mode) as url:
        check = checks(through(settings, url))["pooler of the state"]
        assert check.failed
        assert REFUSED in check.detail
        assert (check.remedy or "").startswith("set pool_mode = session there, or")
        given = {**settings.environment(), "TRIGGERKIT_STATE_URL": url, "TRIGGERKIT_PORT": "0"}
        for command in ("serve", "worker", "stream", "apply", "upgrade"):
            refused = run_command(tmp_path, "triggerkit", command, settings=given)
            assert refused.returncode == 3, (command, refused.stderr)
            assert refused.stderr.count("\n") == 1
            assert REFUSED in refused.stderr
        # Nothing that we set is left for its other clients.
        with psycopg.connect(url, autocommit=True) as other:
            assert other.execute("SHOW search_path").fetchone() != ("pg_catalog",)


def test_the_source_is_not_read_by_way_of_it(
    servers: Servers, tmp_path: Path, settings: Settings
) -> None:
    with pgbouncer(servers, tmp_path, settings.source_dsn, "session") as url:
        update = {"database_url": SecretStr(url), "triggerkit_state_url": settings.database_url}
        check = checks(settings.model_copy(update=update))["direct connection"]
    assert check.failed
    assert "a pooler answers" in check.detail
