"""Accepting many runs at once, and through losses of Postgres and of its answers."""

from __future__ import annotations

import asyncio
from secrets import token_hex
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from tests.faults.rig.proxy import Proxy
from tests.integration.run_state import RunState, new_run
from triggerkit.errors import InvalidPayload, NotDurable
from triggerkit.runs.accept.acceptor import PATIENCE_S
from triggerkit.runs.accept.transaction import accept_on
from triggerkit.runs.accept.within import accept_within
from triggerkit.runs.client import Client
from triggerkit.runs.run import NewRun, RunOptions, RunRef
from triggerkit.runs.session import by_index


async def opened(state: RunState) -> Client:
    return await Client.open(state.settings)


def terminate_clients(state: RunState) -> None:
    """End every connection that accepts runs."""
    state.rows(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name = 'triggerkit client' AND datname = current_database()"
    )


def test_five_thousand_triggers_at_once_are_accepted_by_few_transactions(state: RunState) -> None:
    runs = [new_run(f"key {n % 50}", idempotency_key=str(n % 4000)) for n in range(5000)]

    async def scenario() -> list[list[RunRef]]:
        client = await opened(state)
        try:
            return await asyncio.gather(*(client.accept([run]) for run in runs))
        finally:
            await client.close()

    handles = [handle for [handle] in asyncio.run(scenario())]
    assert [handle.duplicate for handle in handles] == [n >= 4000 for n in range(5000)]
    assert handles[4000].id == handles[0].id
    assert len(state.statuses()) == 4000
    assert state.rows("SELECT count(DISTINCT xmin::text) < 40 FROM triggerkit.runs") == [True]
    assert state.broken_keys() == []
    first = {run.concurrency_key: run.id for run in reversed(runs[:4000])}
    assert set(state.pushed()) == set(first.values())


def test_one_that_cannot_be_stored_is_refused_alone(state: RunState) -> None:
    runs = [new_run(), new_run("a\0b"), new_run(source={"a": "b\0"}), new_run()]
    debounced = [new_run(delay_s=60.0, options=RunOptions(debounce_key="key")) for _ in range(2)]

    async def scenario() -> list[Any]:
        client = await opened(state)
        try:
            return await asyncio.gather(
                *(client.accept([run]) for run in [*runs, *debounced]), return_exceptions=True
            )
        finally:
            await client.close()

    first, second, third, last, one, other = asyncio.run(scenario())
    assert isinstance(second, InvalidPayload)
    assert isinstance(third, InvalidPayload)
    assert (first[0].id, last[0].id) == (runs[0].id, runs[3].id)
    assert one[0].id == other[0].id
    assert {one[0].duplicate, other[0].duplicate} == {False, True}


def test_the_first_trigger_after_its_idle_connections_were_lost_is_accepted(
    state: RunState,
) -> None:
    async def scenario() -> list[RunRef]:
        client = await opened(state)
        try:
            await client.accept([new_run()])
            terminate_clients(state)
            return await client.accept([new_run()])
        finally:
            await client.close()

    [handle] = asyncio.run(scenario())
    assert state.statuses() == ["queued", "queued"]
    assert handle.id in state.pushed()


def test_a_try_whose_answer_was_lost_is_found_by_its_ids(state: RunState) -> None:
    old = new_run(idempotency_key="known")
    state.accept(old)
    runs = [new_run("key"), new_run("key"), new_run(idempotency_key="known"), new_run()]

    async def scenario() -> list[Any]:
        dsn = by_index(state.settings.state_dsn)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            first = await accept_on(connection, runs)
            second = await accept_on(connection, runs, is_again=True)
            other = await accept_on(connection, [new_run()], is_again=True)
            return [first, second, other]

    first, second, other = asyncio.run(scenario())
    assert second[0] == first[0]
    assert sorted(second[1]) == sorted(first[1])
    assert len(other[1]) == 1
    assert len(state.statuses()) == 5


def test_runs_are_made_once_while_the_line_to_postgres_breaks(state: RunState) -> None:
    runs: list[NewRun] = []

    async def scenario() -> list[list[RunRef]]:
        async with Proxy.start(state.settings.state_dsn) as proxy:
            url = SecretStr(proxy.dsn(state.settings.state_dsn))
            client = await Client.open(state.settings.model_copy(update={"database_url": url}))

            async def breaking() -> None:
                for _ in range(5):
                    await proxy.until_forwarded(3)
                    await asyncio.to_thread(terminate_clients, state)

            breaks = asyncio.create_task(breaking())
            try:
                handles: list[list[RunRef]] = []
                # As long as it takes: beside a busy machine's work a break may come late.
                while len(runs) < 300 or not breaks.done():
                    part = [new_run() for _ in range(10)]
                    runs.extend(part)
                    handles += await asyncio.gather(*(client.accept([run]) for run in part))
                await breaks
                return handles
            finally:
                await client.close()

    handles = asyncio.run(scenario())
    assert [handle.id for [handle] in handles] == [run.id for run in runs]
    assert len(state.statuses()) == len(runs)


def test_a_read_only_database_is_said_to_be_so_and_writable_again_later(state: RunState) -> None:
    async def scenario() -> None:
        client = await opened(state)
        pool: Any = client.pool
        configure = pool._configure

        async def as_of_a_standby(connection: psycopg.AsyncConnection) -> None:
            await configure(connection)
            await connection.execute("SET default_transaction_read_only = on")

        try:
            await client.accept([new_run()])
            pool._configure = as_of_a_standby
            terminate_clients(state)
            with pytest.raises(NotDurable, match="the state database is read-only"):
                await client.accept([new_run()])
            pool._configure = configure
            await client.accept([new_run()])
        finally:
            await client.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S * 6))
    assert len(state.statuses()) == 2


def test_a_read_only_connection_of_the_callers_is_said_to_be_so(state: RunState) -> None:
    with psycopg.connect(state.settings.state_dsn) as connection:
        connection.read_only = True
        with pytest.raises(NotDurable, match="read-only"):
            accept_within(connection, [new_run()])
        connection.rollback()


def long_key() -> str:
    """No index takes it, however well it is compressed."""
    return "".join(token_hex(32) for _ in range(80))


def test_keys_longer_than_an_index_row_count_as_they_are_and_are_shown(state: RunState) -> None:
    idempotency, concurrency, item = long_key(), f"group/{long_key()}", long_key()
    first = new_run(concurrency, idempotency_key=idempotency, item_key=item)
    again = new_run(concurrency, idempotency_key=idempotency)
    other = new_run(f"{concurrency}!", idempotency_key=f"{idempotency}!")
    behind = new_run(concurrency)
    handles = state.accept(first, again, other, behind)
    assert [handle.duplicate for handle in handles] == [False, True, False, False]
    assert set(state.pushed()) == {first.id, other.id}
    assert state.run(first.id)["full_keys"] == {
        "idempotency_key": idempotency,
        "concurrency_key": concurrency,
        "item_key": item,
    }
