"""Trace: the way of a change is told whole, and why a consumer does not get it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import pytest
from starlette.responses import JSONResponse, Response
from typer.testing import CliRunner

from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Received, Receiver
from triggerkit import Change
from triggerkit.cli.main import application
from triggerkit.consumers.definition import changes
from triggerkit.consumers.trace.changes import Trace, trace
from triggerkit.consumers.trace.runs import position_of_run
from triggerkit.errors import TriggerkitError
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, pool

TABLE = (
    "CREATE TABLE items (id bigint PRIMARY KEY, name text, note text)",
    "ALTER TABLE items REPLICA IDENTITY FULL",
)


async def traced(settings: Settings, position: int, consumer: str | None = None) -> Trace:
    async with pool(settings.state_dsn, "test", size=2) as states:
        async with states.connection() as connection:
            cursor = await connection.execute("SELECT id FROM triggerkit.databases")
            row = await cursor.fetchone()
        assert row is not None
        return await trace(states, row[0], position, consumer)


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not look():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def settled(settings: Settings, position: int) -> bool:
    with psycopg.connect(settings.state_dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FROM triggerkit.cursors WHERE position >= %s AND batch_id IS NULL",
            [position],
        ).fetchone()
    return row is not None and row[0] > 0


def test_a_delivered_change_is_traced_with_its_attempts_and_its_difference(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 1

    async def fail_once(received: Received) -> Response:
        nonlocal failures
        if received.messages[0]["action"] == "update" and failures:
            failures -= 1
            return JSONResponse({}, 503, headers={"retry-after": "0.05"})
        return JSONResponse({})

    async def scenario() -> None:
        async with Receiver.start(fail_once) as receiver:
            await execute(settings, *TABLE)
            await declare(settings, receiver, changes("items"), "all")
            await declare(
                settings,
                receiver,
                changes("items", actions=["insert", "update"], when_changed=["note"]),
                "choosy",
            )
            await declare(
                settings, receiver, changes("items", filters=[("name", "==", "other")]), "filtered"
            )
            async with streaming(settings, receiver):
                await execute(
                    settings,
                    "INSERT INTO items VALUES (1, 'one', NULL)",
                    "UPDATE items SET name = 'uno'",
                    "DELETE FROM items",
                )
                await receiver.until(lambda: len(receiver.requests) >= 4)
                await until(lambda: settled(settings, 3))
            found = await traced(settings, 2)
            assert (found.action, found.table, found.key) == ("update", "public.items", ["1"])
            assert found.changes == {"name": "one"}
            assert found.record is not None
            assert found.record["name"] == "uno"
            assert found.committed_at <= found.captured_at
            ways = {way.consumer: way for way in found.consumers}
            assert [a.status for a in ways["all"].attempts] == [503, 200]
            assert ways["all"].state == "delivered"
            assert [a.attempt for a in ways["all"].attempts] == [1, 2]
            assert ways["choosy"].state == "not wanted"
            assert "note" in (ways["choosy"].reason or "")
            assert "name == other" in (ways["filtered"].reason or "")
            [only] = (await traced(settings, 3, "choosy")).consumers
            assert "delete is not among" in (only.reason or "")

    asyncio.run(scenario())
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    printed = CliRunner().invoke(application("trace"), ["trace", "2"])
    assert printed.exit_code == 0, printed.output
    assert 'name: "one" → "uno"' in printed.output
    assert "all: delivery, attempt 2" in printed.output, printed.output
    assert "answered 503" in printed.output
    as_json = CliRunner().invoke(application("trace"), ["trace", "2", "--json"])
    assert '"state":"delivered"' in as_json.output


def test_a_parked_change_says_why(settings: Settings) -> None:
    async def refuse(received: Received) -> Response:
        return JSONResponse({}, 422)

    async def scenario() -> None:
        async with Receiver.start(refuse) as receiver:
            await execute(settings, *TABLE)
            await declare(settings, receiver, changes("items", max_attempts=1), "strict")
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'one', NULL)")
                await until(lambda: settled(settings, 1))
            [way] = (await traced(settings, 1)).consumers
            assert way.state == "parked"
            assert way.parked is not None
            assert "422" in way.parked.reason

    asyncio.run(scenario())


def test_the_run_that_a_change_made_is_found_by_the_batch_and_the_change_by_the_run(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, *TABLE)
            await declare(settings, receiver, changes("items"), "all")
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'one', NULL)")
                await until(lambda: settled(settings, 1))
        async with await connect(settings.state_dsn, "test") as state:
            await state.execute(
                "INSERT INTO triggerkit.runs (id, task, queue, status, max_attempts, payload, "
                "idempotency_key, source) VALUES "
                "('run_1', 'b', 'default', 'queued', 1, '{}', %s, "
                '\'{"consumer": "all", "position": 1, "last_position": 1}\'), '
                "('run_2', 'a', 'default', 'queued', 1, '{}', 'another', NULL)",
                [receiver.requests[0].batch_id],
            )
            [way] = (await traced(settings, 1)).consumers
            assert [run.id for run in way.runs] == ["run_1"]
            _, position, consumer = await position_of_run(state, "run_1")
            assert (position, consumer) == (1, "all")
            with pytest.raises(TriggerkitError, match="not created by a change"):
                await position_of_run(state, "run_2")

    asyncio.run(scenario())


def test_what_is_waiting_and_what_is_gone_says_so(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, *TABLE)
            await declare(settings, receiver, changes("items", paused=True), "resting")
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'one', NULL)")
                await until(lambda: logged(settings))
            [way] = (await traced(settings, 1)).consumers
            assert (way.state, way.reason) == ("waiting", "the consumer is paused")
            lease = "UPDATE triggerkit.cursors SET batch_id = 'b', batch_last = 1, lease_until = "
            pulled = "UPDATE triggerkit.consumers SET state = 'active', endpoint_id = NULL"
            await execute(settings, pulled, f"{lease} now() + interval '1 hour'")
            [way] = (await traced(settings, 1)).consumers
            assert way.state == "leased"
            assert way.lease_until is not None
            await execute(settings, f"{lease} now() - interval '1 hour'")
            [way] = (await traced(settings, 1)).consumers
            assert (way.state, way.lease_until) == ("waiting", None)
            with pytest.raises(TriggerkitError, match="from 1 to 1"):
                await traced(settings, 2)
            await execute(
                settings,
                "DELETE FROM triggerkit.events",
                "UPDATE triggerkit.databases SET retained_from = 2",
            )
            with pytest.raises(TriggerkitError, match="dropped from the log"):
                await traced(settings, 1)

    asyncio.run(scenario())


def difficult(change: Change[dict[str, str]]) -> bool:
    while change.record["name"] == "hangs":
        pass
    return change.record["name"] == "wanted"


@pytest.mark.parametrize(
    ("name", "state"), [("hangs", "waiting"), ("wanted", "waiting"), ("other", "not wanted")]
)
def test_a_filter_that_does_not_return_holds_up_nothing_else_in_the_process_that_traces(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, state: str
) -> None:
    monkeypatch.setattr("triggerkit.consumers.calls.functions.CALL_S", 0.5)

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, *TABLE)
            for number in range(3):
                definition = changes("items", filter=difficult, paused=True)
                await declare(settings, receiver, definition, f"difficult{number}")
            async with streaming(settings, receiver):
                await execute(settings, f"INSERT INTO items VALUES (1, '{name}', NULL)")
                await until(lambda: logged(settings))
            tracing = asyncio.create_task(traced(settings, 1))
            while not tracing.done():
                await asyncio.wait_for(asyncio.to_thread(logged, settings), 5)
            assert [way.state for way in (await tracing).consumers] == [state] * 3

    asyncio.run(asyncio.wait_for(scenario(), 60))


def logged(settings: Settings) -> bool:
    with psycopg.connect(settings.state_dsn) as connection:
        return connection.execute("SELECT FROM triggerkit.events").fetchone() is not None
