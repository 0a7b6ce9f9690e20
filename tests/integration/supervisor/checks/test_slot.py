"""A replication slot that is lost, taken or not to be had, and what frees it."""

from __future__ import annotations

import asyncio
from contextlib import closing

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from tests.acceptance.project import eventually
from tests.integration.pipeline import declare, streaming
from tests.integration.supervisor.checks.checking import (
    applied,
    checked,
    database_name,
    number,
    run_sql,
)
from tests.receiver import Receiver
from triggerkit.consumers.definition import changes
from triggerkit.replication.slot.replication_slot import slot_name_for
from triggerkit.settings import Settings
from triggerkit.supervisor.checks import Check, run_checks


def test_a_slot_of_another_plugin(settings: Settings) -> None:
    name = slot_name_for(database_name(settings))
    run_sql(settings, f"SELECT pg_create_physical_replication_slot('{name}')")
    assert_mended_by_dropping(settings, "plugin physical")


def test_a_slot_of_another_database(settings: Settings, servers_database: Settings) -> None:
    name = slot_name_for(database_name(settings))
    run_sql(servers_database, f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
    check = checked(settings)["replication slot"]
    assert check.failed
    assert f'in "{database_name(servers_database)}"' in (check.remedy or "")
    run_sql(servers_database, check.remedy or "")
    assert checked(settings)["replication slot"].ok


@pytest.fixture
def servers_database(settings: Settings) -> Settings:
    """Settings for the server's first database, which no test has for its own."""
    dsn = SecretStr(make_conninfo(settings.source_dsn, dbname="postgres"))
    return settings.model_copy(update={"database_url": dsn})


def test_a_lost_slot(settings: Settings) -> None:
    applied(settings)
    run_sql(settings, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    try:
        run_sql(settings, "SELECT pg_reload_conf()")
        fill = "CREATE TABLE filler AS SELECT 1 AS a", "DROP TABLE filler", "SELECT pg_switch_wal()"
        run_sql(settings, *(3 * fill), "CHECKPOINT")
        eventually(lambda: not checked(settings)["replication slot"].ok, 20, "the slot is lost")
        assert_mended_by_dropping(settings, "is lost")
    finally:
        run_sql(settings, "ALTER SYSTEM RESET max_slot_wal_keep_size", "SELECT pg_reload_conf()")


def test_a_slot_that_is_gone(items: Settings) -> None:
    settings, definition = items, changes("Shop.items")
    applied(settings, definition)
    assert checked(settings)["replication slot"].ok
    run_sql(
        settings, f"SELECT pg_drop_replication_slot('{slot_name_for(database_name(settings))}')"
    )
    check = checked(settings)["replication slot"]
    assert (check.ok, check.required) == (False, True)
    assert "is gone" in check.detail
    assert (check.remedy or "").startswith("triggerkit apply")
    assert any("read the tables anew" in line for line in applied(settings, definition))
    assert checked(settings)["replication slot"].ok


def assert_mended_by_dropping(settings: Settings, detail: str) -> None:
    check = checked(settings)["replication slot"]
    assert check.failed
    assert detail in check.detail
    assert (check.remedy or "").startswith("SELECT pg_drop_replication_slot('triggerkit_")
    run_sql(settings, check.remedy or "")
    assert any("created replication slot" in line for line in applied(settings))
    assert checked(settings)["replication slot"].ok


def replicating(settings: Settings, application: str) -> psycopg.Connection:
    """A connection that takes one of the WAL senders."""
    dsn = make_conninfo(settings.source_dsn, replication="database", application_name=application)
    return psycopg.connect(dsn, autocommit=True)


@pytest.mark.parametrize("application", ["pg_recvlogical", ""], ids=["named", "unnamed"])
def test_a_slot_that_somebody_else_holds(settings: Settings, application: str) -> None:
    applied(settings)
    slot = slot_name_for(database_name(settings))
    with closing(replicating(settings, application)) as somebody:
        somebody.execute(
            f"START_REPLICATION SLOT {slot} LOGICAL 0/0 "
            "(proto_version '1', publication_names 'triggerkit')"
        )
        check = checked(settings)["replication slot"]
        assert check.failed
        assert check.remedy == f"SELECT pg_terminate_backend({somebody.info.backend_pid});"
        run_sql(settings, check.remedy)
        eventually(lambda: checked(settings)["replication slot"].ok, 10, "the slot is free")


def test_our_own_stream_may_hold_the_slot(settings: Settings) -> None:
    async def scenario() -> Check:
        async with Receiver.start() as receiver:
            await declare(settings, receiver, changes("items"))
            async with streaming(settings, receiver):
                found = await run_checks(settings, [])
                return next(check for check in found if check.name == "replication slot")

    run_sql(settings, "CREATE TABLE items (id bigint PRIMARY KEY)")
    check = asyncio.run(scenario())
    assert check.ok
    assert "held by triggerkit stream" in check.detail


def test_no_slot_is_free(settings: Settings) -> None:
    limit = number(settings, "SHOW max_replication_slots")
    taken = number(settings, "SELECT count(*) FROM pg_replication_slots")
    names = [f"taken_{i}" for i in range(limit - taken)]
    try:
        for name in names:
            run_sql(settings, f"SELECT pg_create_physical_replication_slot('{name}')")
        check = checked(settings)["free replication slots"]
        assert check.failed
        assert f"max_replication_slots = {limit + 10};" in (check.remedy or "")
    finally:
        for name in names:
            run_sql(settings, f"SELECT pg_drop_replication_slot('{name}')")
    assert checked(settings)["free replication slots"].ok


def test_no_wal_sender_is_free(settings: Settings) -> None:
    limit = number(settings, "SHOW max_wal_senders")
    left = "SELECT count(*) FROM pg_stat_replication"
    eventually(lambda: number(settings, left) == 0, 10, "the senders of other tests are gone")
    held = [replicating(settings, "test") for _ in range(limit)]
    try:
        check = checked(settings)["free WAL senders"]
        assert check.failed
        assert f"max_wal_senders = {limit + 10};" in (check.remedy or "")
    finally:
        for connection in held:
            connection.close()
    eventually(lambda: checked(settings)["free WAL senders"].ok, 10, "a sender is free")
