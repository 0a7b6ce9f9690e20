"""A consumer that is rewound, deleted, paused or pointed elsewhere while it is being delivered."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool
from starlette.responses import JSONResponse, Response

from tests.integration.parked import (
    TABLE,
    carrying,
    command,
    fetch,
    names,
    refuse,
    until,
    until_states,
)
from tests.integration.pipeline import declare, execute, pipeline, streaming
from tests.receiver import Received, Receiver, accept
from triggerkit.consumers.cursors.cursor import AttemptOutcome, Cursor, CursorMoved
from triggerkit.consumers.cursors.store import CursorStore
from triggerkit.consumers.declare.manage import Consumers
from triggerkit.consumers.declare.plan import Stored
from triggerkit.consumers.definition import changes
from triggerkit.consumers.parked.message import ParkedMessage
from triggerkit.consumers.retention import CursorProgress, save_progress
from triggerkit.settings import Settings
from triggerkit.state.channels import CONSUMERS
from triggerkit.state.connect import connect, pool


async def on_consumer(settings: Settings, action: str, *arguments: object) -> None:
    """What the command `consumers <action>` does to the consumer `test`."""
    async with await connect(settings.state_dsn, "test") as state:
        consumers = Consumers(state, "test")
        await getattr(consumers, action)(await consumers.find("test"), *arguments)


def identities(requests: list[Received]) -> list[str]:
    return [m["metadata"]["idempotency_key"] for r in requests for m in r.messages]


def test_a_rewind_delivers_again_with_other_keys_while_the_stream_runs(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(settings, changes("items", batch_size=10), TABLE) as receiver:
            await execute(settings, "INSERT INTO items SELECT generate_series(1, 100), 'x'")
            await receiver.until(lambda: len(receiver.messages) == 100)
            await on_consumer(settings, "replay", "beginning")
            await receiver.until(lambda: len(receiver.messages) == 200)
        seen = identities(receiver.requests)
        assert len(set(seen)) == 200
        assert {int(k) for r in receiver.requests[-5:] for k in r.keys} <= set(range(1, 101))

    asyncio.run(scenario())


@pytest.mark.parametrize("stays", ["in flight", "answered late"])
def test_a_rewind_in_the_midst_of_a_push_is_not_undone_by_its_answer(
    settings: Settings, stays: str
) -> None:
    hang = asyncio.Event()

    async def answer_late(_received: Received) -> Response:
        await hang.wait()
        return JSONResponse({})

    async def scenario() -> None:
        async with pipeline(settings, changes("items", batch_size=10), TABLE) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'v1')")
            await receiver.until(lambda: len(receiver.requests) == 1)
            receiver.answer = answer_late
            await execute(settings, "UPDATE items SET name = 'v2'")
            await receiver.until(lambda: len(receiver.requests) == 2)
            if stays == "answered late":
                hang.set()
            receiver.answer = accept
            await on_consumer(settings, "replay", "beginning")
            hang.set()
            await receiver.until(
                lambda: (
                    any(k.startswith("1.1.") for k in identities(receiver.requests[-1:]))
                    and names(receiver.requests[-1:])[-1] == "v2"
                )
            )
        again = [m for m in receiver.messages if is_replayed(m)]
        assert [m["record"]["name"] for m in again] == ["v1", "v2"]

    asyncio.run(scenario())


def is_replayed(message: dict[str, dict[str, str]]) -> bool:
    return message["metadata"]["idempotency_key"].split(".")[1] == "1"


@pytest.mark.parametrize("parks", [False, True], ids=["taken", "parks"])
@pytest.mark.parametrize("waits", [False, True], ids=["later", "at the same time"])
def test_what_was_sent_before_a_rewind_cannot_move_its_cursors(
    settings: Settings, waits: bool, parks: bool
) -> None:
    """At the same time: the outcome waits for the rewind's lock, and goes on when it commits."""

    async def scenario() -> None:
        async with Receiver.start() as receiver, pool(settings.state_dsn, "test", size=3) as states:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items"))
            store, cursor = await first_cursor(settings, states)
            [consumer] = await store.consumers()
            cursor = await store.begin(consumer, cursor, **batch(5))
            message = ParkedMessage(cursor.partition, 5, "k", b"{}", "refused", state="failing")
            recording = store.record_attempt(
                consumer, cursor, outcome(5), [message] if parks else []
            )
            async with await connect(settings.state_dsn, "test") as state:
                async with state.transaction():
                    await Consumers(state, "t").replay(await find(state), "beginning")
                    if waits:
                        task = asyncio.create_task(recording)
                        await until_blocked(settings)
                if not waits:
                    task = asyncio.create_task(recording)
            with pytest.raises(CursorMoved):
                await task
            rows = await fetch(
                settings,
                "SELECT DISTINCT position, batch_id FROM triggerkit.cursors",
            )
            assert all(row[1] is None and row[0] < 5 for row in rows)
            assert await fetch(settings, "SELECT * FROM triggerkit.deliveries") == []
            assert await fetch(settings, "SELECT * FROM triggerkit.parked") == []

    asyncio.run(scenario())


@pytest.mark.parametrize("waits", [False, True], ids=["later", "at the same time"])
def test_what_was_read_before_a_rewind_is_not_sent_after_it(
    settings: Settings, waits: bool
) -> None:
    """Even if the rewind leaves the cursor where it was stored: its lane was further in memory."""

    async def scenario() -> None:
        async with Receiver.start() as receiver, pool(settings.state_dsn, "test", size=3) as states:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items"))
            store, cursor = await first_cursor(settings, states)
            [consumer] = await store.consumers()
            cursor = cursor.passed(5)
            async with await connect(settings.state_dsn, "test") as state:
                async with state.transaction():
                    await Consumers(state, "t").replay(await find(state), "beginning")
                    if waits:
                        task = asyncio.create_task(store.begin(consumer, cursor, **batch(6)))
                        await until_blocked(settings)
                if not waits:
                    task = asyncio.create_task(store.begin(consumer, cursor, **batch(6)))
            with pytest.raises(CursorMoved):
                await task

    asyncio.run(scenario())


def test_a_cursor_that_retention_stored_meanwhile_goes_on(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver, pool(settings.state_dsn, "test", size=3) as states:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items"))
            store, cursor = await first_cursor(settings, states)
            [consumer] = await store.consumers()
            cursor = cursor.passed(5)
            passed = CursorProgress(consumer.id, 0, cursor.partition, 4)
            await command(settings, lambda state: save_progress(state, [passed]))
            cursor = await store.begin(consumer, cursor, **batch(6))
            cursor = await store.record_attempt(consumer, cursor, outcome(6))
            assert (cursor.position, cursor.batch_id, cursor.attempt) == (6, None, 0)
            rows = await fetch(settings, "SELECT max(position) FROM triggerkit.cursors")
            assert rows == [(6,)]

    asyncio.run(scenario())


async def find(state: psycopg.AsyncConnection) -> Stored:
    return await Consumers(state, "t").find("test")


async def first_cursor(
    settings: Settings, states: AsyncConnectionPool
) -> tuple[CursorStore, Cursor]:
    rows = await fetch(settings, "SELECT id FROM triggerkit.databases")
    # As if there were something in the log to go back to.
    await command(
        settings, lambda c: c.execute("UPDATE triggerkit.databases SET next_position = 10")
    )
    store = CursorStore(states, rows[0][0])
    [consumer] = await store.consumers()
    return store, (await store.load(consumer))[0]


def batch(last: int) -> Any:
    return {"batch_id": "b", "batch_last": last, "settled": []}


def outcome(last: int) -> AttemptOutcome:
    return AttemptOutcome(last, last, "b", 1, 1, datetime.now(UTC), 200, None, last)


async def until_blocked(settings: Settings) -> None:
    """Until some statement waits for a lock."""
    await until(
        settings,
        "SELECT count(*) FROM pg_locks WHERE NOT granted",
        lambda rows: rows[0][0] >= 1,
    )


def test_a_consumer_that_is_deleted_in_the_midst_of_a_push_ends_and_the_others_go_on(
    settings: Settings,
) -> None:
    hang = asyncio.Event()

    async def answer_late(_received: Received) -> Response:
        await hang.wait()
        return JSONResponse({})

    async def scenario() -> None:
        async with pipeline(settings, changes("items"), TABLE, answer=answer_late) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'v1')")
            await receiver.until(lambda: len(receiver.requests) == 1)
            # Without a notice first: the outcome finds no cursor.
            await command(
                settings,
                lambda c: c.execute("DELETE FROM triggerkit.consumers WHERE name = 'test'"),
            )
            hang.set()
            receiver.answer = accept
            await declare(settings, receiver, changes("items"), "other")
            await execute(settings, "INSERT INTO items VALUES (2, 'v2')")
            await receiver.until(lambda: bool(carrying(receiver, "v2")))
        who = {m["metadata"]["consumer"]["name"] for m in carrying(receiver, "v2")[0].messages}
        assert who == {"other"}

    asyncio.run(scenario())


def test_another_url_is_used_from_the_next_attempt_on_and_at_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.state.backoff.FIRST_WAIT_S", 600)

    async def scenario() -> None:
        async with (
            Receiver.start(refuse("v1", status=503)) as before,
            Receiver.start() as after,
        ):
            await execute(settings, TABLE)
            await declare(settings, before, changes("items"))
            async with streaming(settings, before):
                await execute(settings, "INSERT INTO items VALUES (1, 'v1')")
                await before.until(lambda: len(before.requests) == 1)
                await until(
                    settings,
                    "SELECT last_error FROM triggerkit.consumers",
                    lambda rows: rows != [(None,)],
                )
                await command(
                    settings,
                    lambda c: c.execute(
                        "UPDATE triggerkit.endpoints SET url = %s", [f"{after.url}/push"]
                    ),
                )
                await command(settings, lambda c: c.execute(f"NOTIFY {CONSUMERS}"))
                await after.until(lambda: len(after.requests) == 1)
            assert after.requests[0].batch_id == before.requests[0].batch_id
            assert after.requests[0].body == before.requests[0].body

    asyncio.run(scenario())


def test_nothing_is_tried_again_while_a_consumer_is_paused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.state.backoff.FIRST_WAIT_S", 0.02)
    monkeypatch.setattr("triggerkit.state.backoff.LONGEST_WAIT_S", 0.02)

    async def scenario() -> None:
        async with Receiver.start(refuse("bad")) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items"))
            await declare(settings, receiver, changes("items"), "other")
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'bad')")
                await receiver.until(lambda: tries(receiver, "test") >= 3)
                await on_consumer(settings, "pause")
                # The other's tries show that time passes.
                paused_at = 0
                for _ in range(2):
                    tried = tries(receiver, "other")
                    await receiver.until(lambda n=tried: tries(receiver, "other") > n + 10)  # type: ignore[misc]
                    paused_at, last = tries(receiver, "test"), paused_at
                assert paused_at == last
                await on_consumer(settings, "resume")
                await receiver.until(lambda: tries(receiver, "test") > last)

    def tries(receiver: Receiver, consumer: str) -> int:
        return sum(m["metadata"]["consumer"]["name"] == consumer for m in receiver.messages)

    asyncio.run(scenario())


def test_a_batch_that_is_sent_again_leaves_out_what_was_set_aside_when_it_was_made(
    settings: Settings,
) -> None:
    """Even if its key was let go in the meantime."""
    hang = asyncio.Event()

    async def answer(received: Received) -> Response:
        if "bad" in names([received]):
            return JSONResponse({}, 422)
        if "hangs" in names([received]):
            await hang.wait()
        return JSONResponse({})

    async def scenario() -> None:
        async with Receiver.start(answer) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", group_by=["team"], batch_size=10))
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'bad', 'a')")
                await until_states(settings, "failing")
                await execute(
                    settings,
                    "INSERT INTO items VALUES (2, 'behind', 'a'), (3, 'hangs', 'b')",
                )
                await receiver.until(lambda: bool(carrying(receiver, "hangs")))
                await command(settings, lambda c: c.execute("DELETE FROM triggerkit.parked"))
            hang.set()
            async with streaming(settings, receiver):
                await receiver.until(lambda: bool(carrying(receiver, "behind")))
            first, again = carrying(receiver, "hangs")
            assert (first.body, first.batch_id) == (again.body, again.batch_id)
            assert names(receiver.requests)[-2:] == ["hangs", "behind"]

    asyncio.run(scenario())
