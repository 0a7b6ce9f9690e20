"""An endpoint that answers 410 is left alone until its consumer is active again."""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.pipeline import execute, pipeline
from tests.receiver import Received, Receiver, accept
from triggerkit.consumers.definition import changes
from triggerkit.delivery.loop import DeliveryLoop
from triggerkit.settings import Settings
from triggerkit.state.channels import CONSUMERS
from triggerkit.state.connect import connect

TABLE = "CREATE TABLE items (id bigint PRIMARY KEY, name text)"


async def gone(_received: Received) -> Response:
    return JSONResponse({}, 410)


async def until_state(settings: Settings, wanted: str) -> None:
    async with await connect(settings.state_dsn, "test") as state, asyncio.timeout(10):
        while True:
            cursor = await state.execute("SELECT state FROM triggerkit.consumers")
            if await cursor.fetchall() == [(wanted,)]:
                return
            await asyncio.sleep(0.02)


async def set_state(settings: Settings, *states: str) -> None:
    """Set the consumer's state, and have the stream notice each time."""
    async with await connect(settings.state_dsn, "test") as state:
        for wanted in states:
            await state.execute("UPDATE triggerkit.consumers SET state = %s", [wanted])
            await state.execute(f"NOTIFY {CONSUMERS}")


def keys(receiver: Receiver, first: int) -> set[int]:
    return {int(key) for r in receiver.requests[first:] for key in r.keys}


def test_a_consumer_that_is_active_again_gets_all_it_missed_without_a_restart(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", batch_size=10), TABLE, answer=gone
        ) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1)")
            await until_state(settings, "disabled")
            await execute(settings, "INSERT INTO items SELECT generate_series(2, 100)")
            receiver.answer = accept
            refused = len(receiver.requests)
            await set_state(settings, "active")
            await receiver.until(lambda: len(keys(receiver, refused)) == 100)
        assert len([k for r in receiver.requests[refused:] for k in r.keys]) == 100

    asyncio.run(scenario())


def test_a_pause_in_the_midst_of_a_push_sends_the_same_batch_again_and_only_that(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang, stopped, stop = asyncio.Event(), asyncio.Event(), DeliveryLoop._stop

    async def stop_and_tell(loop: DeliveryLoop, consumer_id: int) -> None:
        await stop(loop, consumer_id)
        stopped.set()

    monkeypatch.setattr(DeliveryLoop, "_stop", stop_and_tell)

    async def answer_late(_received: Received) -> Response:
        await hang.wait()
        return JSONResponse({})

    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", batch_size=10), TABLE, answer=answer_late
        ) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1)")
            await receiver.until(lambda: len(receiver.requests) == 1)
            for number in (2, 3):
                await set_state(settings, "paused", "active")
                stopped.clear()
                await set_state(settings, "paused")
                async with asyncio.timeout(10):
                    await stopped.wait()
                await set_state(settings, "active")
                await receiver.until(lambda n=number: len(receiver.requests) >= n)  # type: ignore[misc]
            hang.set()
            await execute(settings, "UPDATE items SET name = 'last'")
            await receiver.until(lambda: receiver.messages[-1]["record"]["name"] == "last")
        attempts = [r for r in receiver.requests if r.messages[0]["action"] == "insert"]
        assert len({(r.batch_id, r.body) for r in attempts}) == 1
        numbers = [int(r.headers["triggerkit-attempt"]) for r in attempts]
        assert numbers == sorted(set(numbers))

    asyncio.run(scenario())
