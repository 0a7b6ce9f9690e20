"""Triggers in a transaction of the caller's: accepted if it commits, and only then."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.integration.run_state import RunState
from tests.integration.worker_thread import working
from tests.servers import Servers
from triggerkit import Debounce, task
from triggerkit.errors import ConfigurationError, InvalidPayload


@task(name="greet_within")
def greet(name: dict[str, Any]) -> str:
    """Greets."""
    return f"hello {name['name']}"


ADA = {"name": "ada"}


@pytest.fixture
def dsn(triggers: RunState) -> str:
    """The state database."""
    return triggers.settings.state_dsn


def test_a_run_starts_once_the_transaction_is_committed(triggers: RunState, dsn: str) -> None:
    with working(triggers, greet), psycopg.connect(dsn) as connection:
        handle = greet.trigger(ADA, connection=connection)
        assert triggers.statuses() == []
        connection.commit()
        triggers.wait_for(lambda: triggers.run(handle.id)["status"] == "completed", 5)


@pytest.mark.parametrize("autocommit", [False, True], ids=["first statement", "block"])
def test_of_a_transaction_that_is_rolled_back_there_is_no_run(
    triggers: RunState, dsn: str, autocommit: bool
) -> None:
    with psycopg.connect(dsn, autocommit=autocommit) as connection:
        if autocommit:
            with connection.transaction(force_rollback=True):
                greet.trigger(ADA, connection=connection)
        else:
            greet.trigger(ADA, connection=connection)
            connection.rollback()
    assert triggers.statuses() == []


def test_a_connection_in_autocommit_mode_outside_of_a_block_commits_at_once(
    triggers: RunState, dsn: str
) -> None:
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        many = greet.trigger_many([ADA] * 1500, connection=connection)
    assert len(triggers.statuses()) == 1500
    with working(triggers, greet, threads=8):
        triggers.wait_for_status("completed", *(handle.id for handle in many))


def test_async_connections_commit_and_roll_back_too(triggers: RunState, dsn: str) -> None:
    async def both() -> str:
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            await greet.atrigger(ADA, connection=connection)
            await connection.rollback()
            await greet.atrigger_many([ADA, ADA], connection=connection)
            await connection.rollback()
            return (await greet.atrigger(ADA, connection=connection)).id

    run_id = asyncio.run(both())
    assert triggers.rows("SELECT id FROM triggerkit.runs") == [run_id]


def test_keys_and_queues_hold_in_a_transaction_as_elsewhere(triggers: RunState, dsn: str) -> None:
    triggers.connection.execute(
        "INSERT INTO triggerkit.queues (name, concurrency) VALUES ('default', 1)"
    )
    with psycopg.connect(dsn) as connection:
        first = greet.trigger(ADA, connection=connection, idempotency_key="k")
        again = greet.trigger(ADA, connection=connection, idempotency_key="k")
        assert (again.id, again.duplicate) == (first.id, True)
        debounce = Debounce("d", 60)
        waiting = greet.trigger(ADA, connection=connection, debounce=debounce)
        assert greet.trigger(ADA, connection=connection, debounce=debounce).id == waiting.id
    handles = [greet.trigger(ADA, concurrency_key="row") for _ in range(2)]
    with working(triggers, greet):
        triggers.wait_for_status("completed", first.id, *(handle.id for handle in handles))


def test_what_postgres_cannot_store_leaves_the_callers_transaction_whole(
    triggers: RunState, dsn: str
) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE public.orders (id int)")
        with pytest.raises(InvalidPayload):
            greet.trigger(ADA, connection=connection, concurrency_key="a\x00b")
        connection.execute("INSERT INTO public.orders VALUES (1)")
    assert triggers.rows("SELECT id FROM public.orders") == [1]


def test_a_connection_to_another_database_is_refused(triggers: RunState, servers: Servers) -> None:
    with psycopg.connect(servers.postgres.url) as connection:
        connection.execute("CREATE TEMP TABLE mine (id int)")
        with pytest.raises(ConfigurationError, match="not in the database of connection="):
            greet.trigger(ADA, connection=connection)
        assert connection.execute("SELECT count(*) FROM mine").fetchone() == (0,)


def test_the_kind_of_connection_has_to_fit_the_call(triggers: RunState, dsn: str) -> None:
    async def wrong() -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            with pytest.raises(ConfigurationError, match=r"use `await task\.atrigger"):
                greet.trigger(ADA, connection=connection)
        with (
            psycopg.connect(dsn) as sync,
            pytest.raises(ConfigurationError, match=r"use `task\.trigger"),
        ):
            await greet.atrigger(ADA, connection=sync)

    asyncio.run(wrong())
