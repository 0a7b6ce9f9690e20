"""A standby as source: its slot is streamed, and what is written is written on its primary."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import orjson
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from tests.acceptance.project import eventually
from tests.capture.conftest import chosen_versions
from tests.capture.rig.pair import (
    STANDBY,
    Pair,
    ask,
    guide,
    problems,
    run,
    running_pair,
    system_on,
)
from triggerkit.errors import PreflightFailed
from triggerkit.replication.slot import replication_slot
from triggerkit.replication.slot.replication_slot import ensure_slot
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.checks import Check, run_checks
from triggerkit.supervisor.checks import slot as slot_checks

VERSIONS = [version for version in chosen_versions() if version >= 16]

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.parametrize("version", VERSIONS, ids="postgres-{}".format, scope="module"),
]


@pytest.fixture(scope="module")
def pair(version: int) -> Iterator[Pair]:
    """A primary and a standby that keeps what its slots need."""
    with running_pair(version, standby={"hot_standby_feedback": "on"}) as pair:
        yield pair


def checks(pair: Pair, settings: Settings, **update: str) -> dict[str, Check]:
    own = {
        "database_url": pair.primary.url(),
        "triggerkit_standby_url": pair.standby.url(),
        "triggerkit_state_url": settings.state_dsn,
        **update,
    }
    secret = {name: SecretStr(value) for name, value in own.items()}
    found = asyncio.run(run_checks(settings.model_copy(update=secret), [], advise=True))
    return {check.name: check for check in found}


def test_its_slot_is_streamed_and_goes_on_when_it_takes_over(
    version: int, tmp_path: Path, settings: Settings
) -> None:
    with running_pair(version, standby={"hot_standby_feedback": "on"}) as pair:
        system = system_on(pair, tmp_path, settings, TRIGGERKIT_STANDBY_URL=pair.standby.url())
        try:
            before = system.insert("before the first start")
            applied = system.command("apply")
            assert applied.returncode == 0, applied.stderr
            assert "created replication slot triggerkit_postgres" in applied.stdout
            assert pair.slot(pair.primary) is None
            assert pair.slot(pair.standby) is not None
            assert "nothing to change" in system.command("plan").stdout
            for name in ("serve", "worker", "stream"):
                system.start(name)
            after = system.insert("after it")
            eventually(lambda: system.has_effect(before), 30, system.status)
            eventually(lambda: system.has_effect(after), 30, system.status)
            checked = system.command("check")
            assert checked.returncode == 0, checked.stdout
            assert "standby: it follows its primary" in checked.stdout
            assert not problems(system)
            verified = system.command("verify", "copy_item", "--json")
            assert verified.returncode == 0, verified.stdout + verified.stderr
            system.mended(after)

            pair.until_replayed()
            pair.fail_over()
            key = system.insert("after the failover")
            eventually(lambda: system.has_effect(key), 60, system.status)
            assert "triggerkit_postgres" in str(pair.slot(pair.standby))
            assert not {"gap", "slot_missing", "slot_lost"} & problems(system).keys()
            (consumer,) = orjson.loads(system.command("status", "--json").stdout)["consumers"]
            assert consumer["gap"] is None
            eventually(lambda: not problems(system), 60, lambda: str(problems(system)))
            checked = system.command("check")
            assert checked.returncode == 0, checked.stdout
            assert "standby: it is a primary now" in checked.stdout
        finally:
            system.stop_all()


def test_what_it_lacks_is_told(pair: Pair, settings: Settings) -> None:
    assert checks(pair, settings)["standby"].ok
    assert "standby feedback" not in checks(pair, settings)
    for setting, value in (("hot_standby_feedback", "off"), ("primary_slot_name", "")):
        pair.standby.restart_standby(**{setting: value})
        check = checks(pair, settings)["standby feedback"]
        assert (check.ok, check.failed) == (False, False)
        assert f"ALTER SYSTEM SET {setting} = " in (check.remedy or "")
    pair.standby.restart_standby(primary_conninfo="")
    check = checks(pair, settings)["standby"]
    assert check.failed
    assert check.detail == "it receives no WAL"
    pair.standby.restart_standby()
    eventually(lambda: checks(pair, settings)["standby"].ok, 30, "a standby that follows")


def test_what_the_guide_says_makes_a_standby_a_source(version: int, settings: Settings) -> None:
    on_primary, on_standby = guide("A standby as source")
    with running_pair(version) as pair:
        # As it is before the guide was read.
        pair.standby.restart_standby(primary_slot_name="")
        run(
            pair.primary,
            f"SELECT pg_drop_replication_slot('{STANDBY}')",
            "CREATE ROLE triggerkit_app LOGIN REPLICATION",
        )
        assert not checks(pair, settings)["standby feedback"].ok
        run(pair.primary, *on_primary)
        run(pair.standby, *on_standby)
        # Its line of command, which the rig gives, has the name that the guide sets.
        pair.standby.restart_standby()
        assert ask(pair.standby, "SHOW primary_slot_name") == STANDBY
        found = checks(pair, settings)
        assert "standby feedback" not in found
        pair.until_replayed()

        async def make() -> bool:
            user = {"user": "triggerkit_app"}
            async with (
                await connect(make_conninfo(pair.primary.url(), **user), "test") as primary,
                await connect(make_conninfo(pair.standby.url(), **user), "test") as standby,
            ):
                await primary.execute("SELECT pg_log_standby_snapshot()")
                return await ensure_slot(standby, "triggerkit_postgres", primary)

        assert asyncio.run(make())


def test_another_server_is_no_standby(pair: Pair, settings: Settings) -> None:
    own = checks(pair, settings, triggerkit_standby_url=settings.source_dsn)["standby"]
    assert own.failed
    assert own.detail == "it is another server's database"
    assert "TRIGGERKIT_STANDBY_URL" in (own.remedy or "")


def test_an_older_standby_is_told(
    pair: Pair, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_checks, "STANDBY_FROM", 990000)
    check = checks(pair, settings)["standby"]
    assert check.failed
    assert check.detail == "before Postgres 16 no standby has such a slot"


def test_a_standby_in_place_of_the_primary_is_told_where_it_belongs(
    pair: Pair, settings: Settings
) -> None:
    check = checks(pair, settings, database_url=pair.standby.url())["primary server"]
    assert check.failed
    assert "TRIGGERKIT_STANDBY_URL to this one" in (check.remedy or "")


def test_the_slot_is_made_by_a_role_that_may_log_no_snapshot(pair: Pair) -> None:
    run(pair.primary, "CREATE ROLE capturing LOGIN REPLICATION")
    pair.until_replayed()

    async def make() -> bool:
        async with (
            await connect(make_conninfo(pair.primary.url(), user="capturing"), "test") as primary,
            await connect(make_conninfo(pair.standby.url(), user="capturing"), "test") as standby,
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await primary.execute("SELECT pg_log_standby_snapshot()")
            return await ensure_slot(standby, "quiet", primary)

    assert asyncio.run(make())
    run(pair.standby, "SELECT pg_drop_replication_slot('quiet')")


def test_a_standby_that_follows_nobody_makes_no_slot_and_says_so(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replication_slot, "_STANDBY_S", 1.5)
    pair.standby.restart_standby(primary_conninfo="")

    async def make() -> None:
        async with (
            await connect(pair.primary.url(), "test") as primary,
            await connect(pair.standby.url(), "test") as standby,
        ):
            with pytest.raises(PreflightFailed, match="it does not follow its primary"):
                await ensure_slot(standby, "never", primary)
            assert (await (await standby.execute("SELECT 1")).fetchone()) == (1,)

    try:
        asyncio.run(make())
        assert ask(pair.standby, "SELECT count(*) FROM pg_replication_slots") == 0
    finally:
        pair.standby.restart_standby()


def test_a_slot_whose_rows_the_primary_removed_is_told_and_made_anew(
    version: int, tmp_path: Path, settings: Settings
) -> None:
    with running_pair(version, standby={"hot_standby_feedback": "off"}) as pair:
        system = system_on(pair, tmp_path, settings, TRIGGERKIT_STANDBY_URL=pair.standby.url())
        try:
            assert system.command("apply").returncode == 0
            run(
                pair.primary,
                "CREATE TABLE passing (id int)",
                "DROP TABLE passing",
                "VACUUM pg_class",
            )
            eventually(
                lambda: (pair.slot(pair.standby) or {}).get("conflicting"), 30, "a lost slot"
            )
            why = "hot_standby_feedback"
            assert why in problems(system)["slot_lost"]
            checked = system.command("check")
            assert checked.returncode == 3
            assert re.search(rf"triggerkit_postgres is lost: .*{why}", checked.stdout)
            refused = system.command("apply", "--keep")
            assert refused.returncode == 3
            assert why in refused.stderr
            replaced = system.command("apply", "--yes")
            assert replaced.returncode == 0, replaced.stderr
            assert "backfill start" in replaced.stdout
            assert "slot_lost" not in problems(system)
        finally:
            system.stop_all()
