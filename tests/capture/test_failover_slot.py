"""A slot for failovers: a standby has it, and nothing is lost when that takes over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import psycopg
import pytest
from pydantic import SecretStr

from tests.acceptance.project import eventually
from tests.capture.conftest import chosen_versions
from tests.capture.rig.pair import (
    STANDBY,
    Pair,
    guide,
    problems,
    rows_with_runs,
    run,
    running_pair,
    system_on,
)
from triggerkit.replication.slot.replication_slot import ensure_slot
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.checks import Check, run_checks

VERSIONS = [version for version in chosen_versions() if version >= 17]

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.parametrize("version", VERSIONS, ids="postgres-{}".format),
]


@pytest.fixture
def pair(version: int) -> Iterator[Pair]:
    """A pair that keeps nothing for a failover yet."""
    with running_pair(version, standby={"hot_standby_feedback": "on"}) as pair:
        yield pair


def failover(pair: Pair, settings: Settings) -> Check | None:
    update = {
        "database_url": SecretStr(pair.primary.url()),
        "triggerkit_state_url": settings.database_url,
    }
    found = asyncio.run(run_checks(settings.model_copy(update=update), [], advise=True))
    return next((check for check in found if check.name == "failover"), None)


async def _make(pair: Pair) -> None:
    async with await connect(pair.primary.url(), "test") as primary:
        await ensure_slot(primary, "triggerkit_postgres")


def test_what_a_failover_lacks_is_told_one_after_the_other(pair: Pair, settings: Settings) -> None:
    assert failover(pair, settings) is None, "there is no slot yet"
    run(
        pair.primary, "SELECT pg_create_logical_replication_slot('triggerkit_postgres', 'pgoutput')"
    )
    check = failover(pair, settings)
    assert check is not None
    assert not check.ok
    assert "ALTER_REPLICATION_SLOT triggerkit_postgres (FAILOVER true)" in (check.remedy or "")
    run(pair.primary, "SELECT pg_drop_replication_slot('triggerkit_postgres')")
    asyncio.run(_make(pair))
    check = failover(pair, settings)
    assert check is not None
    assert "none synchronizes slots" in check.detail
    for statement in (check.remedy or "").partition("  --")[0].split(";")[:-1]:
        run(pair.standby, statement)

    def waits() -> bool:
        found = failover(pair, settings)
        return found is not None and "ahead of a standby" in found.detail

    eventually(waits, 60, lambda: str(failover(pair, settings)))
    check = failover(pair, settings)
    assert check is not None
    assert f"synchronized_standby_slots = '{STANDBY}'" in (check.remedy or "")
    for statement in (check.remedy or "").split(";")[:-1]:
        run(pair.primary, statement)
    eventually(lambda: (found := failover(pair, settings)) and found.ok, 30, "nothing is lacking")


def test_what_the_guide_says_lacks_nothing(version: int, settings: Settings) -> None:
    on_standby, on_primary, alter = guide("Failover")
    with running_pair(version) as pair:
        # As an earlier release made it.
        run(
            pair.primary,
            "SELECT pg_create_logical_replication_slot('triggerkit_postgres', 'pgoutput')",
        )
        run(pair.standby, *on_standby)
        run(pair.primary, *on_primary)
        with psycopg.connect(
            pair.primary.url(), autocommit=True, replication="database"
        ) as connection:
            (statement,) = alter
            named = statement.replace("triggerkit_blog", "triggerkit_postgres")
            connection.execute(named.encode())
        eventually(
            lambda: (found := failover(pair, settings)) and found.ok,
            60,
            lambda: str(failover(pair, settings)),
        )


def test_nothing_is_lost_when_a_standby_takes_over(
    version: int, tmp_path: Path, settings: Settings
) -> None:
    kept = {"synchronized_standby_slots": STANDBY, "synchronous_standby_names": STANDBY}
    # Only once there is a standby.
    with running_pair(
        version, standby={"hot_standby_feedback": "on", "sync_replication_slots": "on"}
    ) as pair:
        system = system_on(pair, tmp_path, settings)
        written: set[int] = set()
        is_over = threading.Event()

        def write() -> None:
            number = 0
            while not is_over.is_set():
                number += 1
                try:
                    with psycopg.connect(pair.url, autocommit=True) as connection:
                        connection.execute(
                            "INSERT INTO public.items VALUES (%s, 'a name')", [number]
                        )
                    written.add(number)
                except psycopg.Error:
                    is_over.wait(0.1)

        for setting, value in kept.items():
            run(pair.primary, f"ALTER SYSTEM SET {setting} = '{value}'")
        run(pair.primary, "SELECT pg_reload_conf()")
        writing = threading.Thread(target=write)
        try:
            assert system.command("apply").returncode == 0
            assert (pair.slot(pair.primary) or {})["failover"]
            for name in ("serve", "worker", "stream"):
                system.start(name)
            writing.start()
            eventually(
                lambda: (pair.slot(pair.standby) or {}).get("temporary") is False,
                90,
                lambda: f"a slot of the standby: {pair.slot(pair.standby)}",
            )
            eventually(lambda: len(rows_with_runs(settings)) > 20, 60, system.status)
            pair.fail_over()
            before = len(written)
            eventually(lambda: len(written) > before + 20, 60, "rows after the failover")
            is_over.set()
            writing.join(30)
            eventually(
                lambda: written <= rows_with_runs(settings),
                60,
                lambda: f"{sorted(written - rows_with_runs(settings))}\n{system.status()}",
            )
            (consumer,) = orjson.loads(system.command("status", "--json").stdout)["consumers"]
            assert consumer["gap"] is None
            assert not {"slot_missing", "slot_lost", "slot_unusable"} & problems(system).keys()
        finally:
            is_over.set()
            system.stop_all()
