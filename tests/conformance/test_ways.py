"""Messages become the same runs by our webhook routes and directly."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import psycopg
import pytest

from tests.conformance import taking
from tests.conformance.ways import Via, declare, made, names, streaming
from tests.integration.kafkalog.delivering import with_log_on_kafka
from tests.integration.parked import TABLE, command, fetch, until, until_states
from tests.integration.pipeline import execute
from triggerkit.consumers.declare.manage import Consumers
from triggerkit.consumers.definition import changes, rows
from triggerkit.consumers.parked.manage import discard_parked
from triggerkit.settings import Settings

COUNT = "SELECT coalesce(sum(coalesce(items, 1)), 0) FROM triggerkit.runs"


#: What a log on Kafka has not: one order for other columns than the key, and events of its own.
in_postgres = pytest.mark.parametrize("settings", ["postgres"], indirect=True)


@pytest.fixture(params=["postgres", "kafka"])
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Settings for a project on the test's own database, with its log there or on Kafka."""
    if request.param == "postgres":
        return settings
    return with_log_on_kafka(settings, request.getfixturevalue("kafka_server"))


@pytest.fixture(params=["webhook", "direct"])
def via(request: pytest.FixtureRequest) -> Via:
    way: Via = request.param
    return way


async def until_taken(settings: Settings, count: int) -> None:
    """Wait until so many messages are in runs."""
    await until(settings, COUNT, lambda rows: rows[0][0] >= count)


async def until_captured(settings: Settings) -> None:
    """Wait until all that was written is in the log: the slot was told so."""
    [(end,)] = await fetch(settings, "SELECT pg_current_wal_lsn()::text")
    confirmed = (
        f"SELECT confirmed_flush_lsn >= '{end}'::pg_lsn FROM pg_replication_slots "
        "WHERE database = current_database()"
    )
    await until(settings, confirmed, lambda rows: rows == [(True,)])


async def act(settings: Settings, what: str, *given: Any) -> None:
    """Have the consumer paused, resumed or replayed, as a command does."""

    async def work(state: psycopg.AsyncConnection) -> None:
        consumers = Consumers(state, "test")
        await getattr(consumers, what)(await consumers.find("test"), *given)

    await command(settings, work)


async def replay(settings: Settings) -> None:
    """Deliver all again."""
    await act(settings, "replay", "beginning")


def test_each_message_is_in_one_run_made_as_the_task_says(settings: Settings, via: Via) -> None:
    async def scenario() -> None:
        await execute(settings, TABLE)
        await declare(settings, via, changes("items", batch_size=50))
        async with streaming(settings, via):
            await execute(
                settings, "INSERT INTO items SELECT n, 'v0' FROM generate_series(1, 400) n"
            )
            await execute(settings, "UPDATE items SET name = 'v1'")
            await until_taken(settings, 800)
        runs = await made(settings)
        messages = [m for run in runs for m in run.messages]
        assert Counter(
            Counter((m["record"]["id"], m["record"]["name"]) for m in messages).values()
        ) == {1: 800}
        for run in runs:
            assert (run.task, run.queue, run.max_attempts) == ("take_batch", "items", 7)
            assert (run.expires, run.priority) == (True, 3)
            assert run.idempotency_key.startswith("msg_")
            assert run.traceparent is not None
            metadata = run.messages[0]["metadata"]
            assert run.source["position"] == metadata["position"]
            assert run.source["last_position"] == run.messages[-1]["metadata"]["position"]
            assert run.concurrency_key is not None
            assert run.concurrency_key.startswith("test/")

    asyncio.run(scenario())


def test_changes_of_one_row_run_in_order(settings: Settings, via: Via) -> None:
    async def scenario() -> None:
        await execute(settings, TABLE, "INSERT INTO items VALUES (1, 'v0'), (2, 'v0')")
        await declare(settings, via, changes("items", batch_size=50), taking.take_one)
        async with streaming(settings, via):
            for version in range(1, 6):
                await execute(settings, f"UPDATE items SET name = 'v{version}'")
            await until_taken(settings, 10)
        runs = await made(settings)
        for row in (1, 2):
            of_row = [run for run in runs if run.messages[0]["record"]["id"] == row]
            assert [run.messages[0]["record"]["name"] for run in of_row] == [
                f"v{version}" for version in range(1, 6)
            ]
            assert {run.concurrency_key for run in of_row} == {f'row/public.items:["{row}"]'}
            for run in of_row:
                assert run.idempotency_key == run.messages[0]["metadata"]["idempotency_key"]
        waiting = await fetch(settings, "SELECT count(*) FROM triggerkit.runs WHERE NOT blocked")
        assert waiting == [(2,)]

    asyncio.run(scenario())


@in_postgres
def test_a_group_is_ordered_as_one(settings: Settings, via: Via) -> None:
    async def scenario() -> None:
        await execute(settings, TABLE)
        await declare(settings, via, changes("items", group_by=["team"]), taking.take_one)
        async with streaming(settings, via):
            await execute(settings, "INSERT INTO items SELECT generate_series(1, 9), 'v', 'a'")
            await until_taken(settings, 9)
        assert {run.concurrency_key for run in await made(settings)} == {'group/["a"]'}

    asyncio.run(scenario())


@pytest.mark.parametrize("task", [taking.take_batch, taking.take_one], ids=lambda task: task.name)
def test_a_message_that_does_not_fit_is_parked_and_the_later_ones_of_its_row_behind_it(
    settings: Settings, via: Via, task: Any
) -> None:
    async def scenario() -> None:
        await execute(settings, TABLE)
        await declare(settings, via, changes("items", batch_size=10), task)
        async with streaming(settings, via):
            await execute(settings, "INSERT INTO items VALUES (1, 'a'), (2, NULL), (3, 'c')")
            await until_states(settings, "failing")
            await execute(settings, "UPDATE items SET name = 'b' WHERE id = 2")
            await until_states(settings, "failing", "waiting")
            await until_taken(settings, 2)
            [(reason, status, attempts)] = await fetch(
                settings,
                "SELECT reason, status, attempts FROM triggerkit.parked WHERE state = 'failing'",
            )
            assert "name" in reason
            assert status in (200, 422)
            assert attempts >= 1
            await command(
                settings, lambda state: discard_parked(state, "test", "me", state="failing")
            )
            await until_taken(settings, 3)
            await until_states(settings)
        assert sorted(map(str, await names(settings))) == ["a", "b", "c"]

    asyncio.run(scenario())


def test_a_parked_message_is_in_one_run_once_it_fits(
    settings: Settings, via: Via, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.state.backoff.FIRST_WAIT_S", 0.05)
    monkeypatch.setattr("triggerkit.state.backoff.LONGEST_WAIT_S", 0.4)

    async def scenario() -> None:
        await execute(settings, TABLE)
        fits = changes("items", batch_size=10, filters=[("name", "not_null")])
        await declare(settings, via, changes("items", batch_size=10))
        async with streaming(settings, via) as running:
            await execute(settings, "INSERT INTO items VALUES (2, NULL)")
            await until_states(settings, "failing")
            await execute(settings, "UPDATE items SET name = 'b' WHERE id = 2")
            await until_states(settings, "failing", "waiting")
            # The first passes the filters no more; the second is retried, and fits.
            await declare(running, via, fits)
            await until_states(settings)
            await until_taken(settings, 1)
        assert await names(settings) == ["b"]
        [delivery] = await fetch(
            settings,
            "SELECT status, messages FROM triggerkit.deliveries WHERE error IS NULL "
            "AND status = 200 AND first_position = (SELECT max((source ->> 'position')::bigint) "
            "FROM triggerkit.runs)",
        )
        assert delivery == (200, 1)

    asyncio.run(scenario())


def test_filters_transforms_and_when_changed_are_the_same(settings: Settings, via: Via) -> None:
    async def scenario() -> None:
        await execute(settings, TABLE, "ALTER TABLE items REPLICA IDENTITY FULL")
        wanted = changes(
            "items",
            batch_size=1,
            when_changed=["name"],
            filter=taking.is_wanted,
            transform=taking.name_it,
        )
        await declare(settings, via, wanted, taking.take_named)
        async with streaming(settings, via):
            await execute(
                settings,
                "INSERT INTO items VALUES (1, 'a'), (2, 'unwanted')",
                "UPDATE items SET team = 'red' WHERE id = 1",
                "UPDATE items SET name = 'z' WHERE id = 1",
            )
            await until_taken(settings, 2)
        runs = await made(settings)
        assert [run.messages for run in runs] == [[{"called": "a"}], [{"called": "z"}]]
        assert len({run.idempotency_key for run in runs}) == 2

    asyncio.run(scenario())


def test_existing_rows_come_by_a_backfill_and_a_replay_runs_them_again(
    settings: Settings, via: Via
) -> None:
    async def scenario() -> None:
        await execute(settings, TABLE, "INSERT INTO items SELECT generate_series(1, 30), 'old'")
        await declare(settings, via, rows("items", batch_size=10))
        async with streaming(settings, via):
            await until_taken(settings, 30)
            await replay(settings)
            await until_taken(settings, 60)
        runs = await made(settings)
        ids = Counter(m["record"]["id"] for run in runs for m in run.messages)
        assert ids == dict.fromkeys(range(1, 31), 2)
        assert len({run.idempotency_key for run in runs}) == len(runs)

    asyncio.run(scenario())


def test_a_paused_consumer_makes_no_runs_until_it_is_resumed(settings: Settings, via: Via) -> None:
    async def scenario() -> None:
        await execute(settings, TABLE)
        await declare(settings, via, changes("items", batch_size=10))
        async with streaming(settings, via):
            await act(settings, "pause")
            await execute(settings, "INSERT INTO items VALUES (1, 'a')")
            await until_captured(settings)
            assert await made(settings) == []
            await act(settings, "resume")
            await until_taken(settings, 1)

    asyncio.run(scenario())


@in_postgres
def test_a_task_takes_events(settings: Settings, via: Via) -> None:
    async def scenario() -> None:
        await execute(settings, TABLE)
        await declare(settings, via, changes("items", body="event"), taking.take_event)
        async with streaming(settings, via):
            await execute(
                settings, "INSERT INTO items VALUES (1, 'a')", "DELETE FROM items WHERE id = 1"
            )
            await until_taken(settings, 2)
        events = [event for run in await made(settings) for event in run.messages]
        assert [event["event"] for event in events] == ["inserted", "deleted"]
        assert [event["data"]["name"] for event in events] == ["a", "a"]

    asyncio.run(scenario())


@pytest.mark.parametrize(("before", "after"), [("webhook", "direct"), ("direct", "webhook")])
@pytest.mark.parametrize("task", [taking.take_batch, taking.take_one], ids=lambda task: task.name)
def test_another_way_makes_no_second_run_of_what_was_accepted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, before: Via, after: Via, task: Any
) -> None:
    """The runs are made, and the stream ends before it knows of it."""

    async def scenario() -> None:
        await execute(settings, TABLE)
        await declare(settings, before, changes("items", batch_size=50), task)
        point = "post-after" if before == "webhook" else "run-inserted"
        reached = asyncio.Event()
        ending = monkeypatch.context()
        with ending as patched:
            loop = asyncio.get_running_loop()

            def end(at: str) -> None:
                if at == point:
                    loop.call_soon_threadsafe(reached.set)
                    raise asyncio.CancelledError

            patched.setattr("triggerkit.delivery.lane.reach", end)
            patched.setattr("triggerkit.delivery.direct.way.reach", end)
            async with streaming(settings, before):
                await execute(settings, "INSERT INTO items SELECT generate_series(1, 20), 'a'")
                await reached.wait()
                await until_taken(settings, 20)
        await declare(settings, after, changes("items", batch_size=50), task)
        async with streaming(settings, after):
            await execute(settings, "INSERT INTO items SELECT generate_series(21, 40), 'b'")
            await until_taken(settings, 40)
        ids = Counter(m["record"]["id"] for run in await made(settings) for m in run.messages)
        assert ids == dict.fromkeys(range(1, 41), 1)

    asyncio.run(scenario())
