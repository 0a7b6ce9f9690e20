"""Accepting runs: durable, once per idempotency key, in order per concurrency key."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from tests.integration.run_state import RunState, completed, new_run, run_state
from triggerkit.errors import InvalidPayload
from triggerkit.runs.client import Client
from triggerkit.runs.run import RunError, RunRef
from triggerkit.settings import Settings


def test_an_accepted_run_is_in_postgres_and_its_id_in_redis(state: RunState) -> None:
    run = new_run(source={"table": "public.posts"})
    assert state.accept(run) == [RunRef(run.id, run.task)]
    row = state.run(run.id)
    assert (row["status"], row["attempt"], row["source"]) == ("queued", 0, run.source)
    assert state.pushed() == [run.id]


def test_a_repeated_idempotency_key_answers_the_first_handle_and_starts_nothing(
    state: RunState,
) -> None:
    first, again = new_run(idempotency_key="k"), new_run(idempotency_key="k")
    other_task = new_run(idempotency_key="k", task="other")
    state.accept(first)
    assert state.accept(again, other_task) == [
        RunRef(first.id, first.task, duplicate=True),
        RunRef(other_task.id, "other"),
    ]
    assert state.pushed() == [first.id]
    assert state.pushed("other") == [other_task.id]


def test_a_key_repeated_within_one_request_makes_one_run(state: RunState) -> None:
    runs = [new_run("row", idempotency_key="k"), new_run("row", idempotency_key="k")]
    handles = state.accept(*runs)
    assert [handle.id for handle in handles] == [runs[0].id, runs[0].id]
    assert [handle.duplicate for handle in handles] == [False, True]
    assert state.statuses() == ["queued"]


def test_two_acceptors_of_the_same_messages_make_each_run_once(settings: Settings) -> None:
    keys = [f"message-{n}" for n in range(50)]

    async def scenario() -> list[list[RunRef]]:
        clients = [await Client.open(settings) for _ in range(4)]
        requests = [
            client.accept([new_run(f"row/{key}", idempotency_key=key) for key in keys])
            for client in clients
        ]
        try:
            return await asyncio.gather(*requests)
        finally:
            for client in clients:
                await client.close()

    answers = asyncio.run(scenario())
    for handles in zip(*answers, strict=True):
        assert len({handle.id for handle in handles}) == 1
        assert [handle.duplicate for handle in handles].count(False) == 1
    with run_state(settings) as state:
        assert state.statuses() == ["queued"] * len(keys)
        assert sorted(state.pushed()) == sorted(handles[0].id for handles in zip(*answers))  # noqa: B905
        assert state.broken_keys() == []


def test_of_one_key_only_the_first_run_is_pushed_and_the_others_wait(state: RunState) -> None:
    first, second, third = new_run("row"), new_run("row"), new_run("row")
    other_row, other_task = new_run("other"), new_run("row", task="other")
    state.accept(first, second, other_row)
    state.accept(third, other_task)
    assert state.pushed() == [first.id, other_row.id]
    assert state.pushed("other") == [other_task.id]
    waiting = state.rows("SELECT id FROM triggerkit.runs WHERE blocked ORDER BY seq")
    assert waiting == [second.id, third.id]


def test_a_run_whose_predecessor_was_a_duplicate_is_not_blocked_for_ever(state: RunState) -> None:
    seen = new_run("row", idempotency_key="seen")
    state.accept(seen)
    with state.claims() as claims:
        claims.complete([completed(run) for run in claims.claim(state.take())])
    again, next_one = new_run("row", idempotency_key="seen"), new_run("row", idempotency_key="new")
    handles = state.accept(again, next_one)
    assert handles[0] == RunRef(seen.id, seen.task, duplicate=True)
    assert state.pushed() == [next_one.id]
    assert state.broken_keys() == []


def test_a_run_behind_one_that_failed_for_good_is_not_blocked_for_ever(state: RunState) -> None:
    error = RunError("ValueError", "no attempt can help", "")
    hopeless = new_run("row", failed=True, attempt=1, error=error)
    later = new_run("row", attempt=1, error=error)
    state.accept(hopeless, later)
    assert state.statuses() == ["failed", "queued"]
    assert state.pushed() == [later.id]
    assert state.broken_keys() == []


def test_a_thousand_keys_in_one_request_are_accepted_in_their_order(state: RunState) -> None:
    runs = [new_run(f"row/{n}", idempotency_key=str(n)) for n in range(1000)]
    state.accept(*runs)
    assert state.pushed() == [run.id for run in runs]
    assert state.rows("SELECT id FROM triggerkit.runs ORDER BY seq") == [run.id for run in runs]


def test_a_delayed_run_is_not_pushed_and_holds_its_key(state: RunState) -> None:
    delayed, behind = new_run("row", delay_s=60.0), new_run("row")
    state.accept(delayed, behind)
    assert state.statuses() == ["delayed", "queued"]
    assert state.pushed() == []
    assert state.broken_keys() == []


def test_a_run_is_durable_while_redis_is_away(settings: Settings) -> None:
    away = Settings.parse({**settings.environment(), "REDIS_URL": "unix:///nowhere/redis.sock"})
    run = new_run()

    async def scenario() -> list[RunRef]:
        client = await Client.open(away)
        try:
            return await client.accept([run])
        finally:
            await client.close()

    assert asyncio.run(scenario()) == [RunRef(run.id, run.task)]
    with run_state(settings) as state:
        assert state.run(run.id)["status"] == "queued"


def test_connections_that_postgres_ended_cost_no_refusal(settings: Settings) -> None:
    async def scenario() -> None:
        client = await Client.open(settings)
        try:
            await asyncio.gather(*(client.accept([new_run()]) for _ in range(8)))
            with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'triggerkit client'"
                )
            assert [handle.duplicate for handle in await client.accept([new_run()])] == [False]
        finally:
            await client.close()

    asyncio.run(scenario())
    with run_state(settings) as state:
        assert state.statuses() == ["queued"] * 9


@pytest.mark.parametrize("key", [None, "row"])
def test_a_text_postgres_cannot_store_is_an_invalid_payload(
    state: RunState, key: str | None
) -> None:
    for poison in (
        new_run(key, source={"table": "a\x00b"}),
        new_run(key, idempotency_key="a\x00b"),
    ):
        with pytest.raises(InvalidPayload):
            state.accept(new_run(key), poison)
    assert state.statuses() == []
