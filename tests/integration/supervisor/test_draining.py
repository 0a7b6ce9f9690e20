"""A stream that is asked to end lets pushes under way end, so that nobody gets them again."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Received, Receiver
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings
from triggerkit.supervisor.probes.process_health import ProcessHealth
from triggerkit.supervisor.stream import run_stream

TABLE = "CREATE TABLE public.items (id bigint PRIMARY KEY)"


async def drained(settings: Settings, receiver: Receiver, rows: int, stop_after: int) -> float:
    """Stream until so many pushes have come, then ask it to end; the seconds that took."""
    health, ready = ProcessHealth(), asyncio.Event()
    stream = asyncio.create_task(run_stream(settings, ready.set, health=health))
    await ready.wait()
    await execute(settings, f"INSERT INTO items SELECT generate_series(1, {rows})")
    await receiver.until(lambda: len(receiver.requests) >= stop_after)
    asked_at = time.monotonic()
    health.stop()
    stream.cancel()
    with suppress(asyncio.CancelledError):
        await stream
    return time.monotonic() - asked_at


@pytest.mark.parametrize("status", [200, 500], ids=["taken", "failed"])
def test_what_was_sent_is_recorded_and_not_sent_again(settings: Settings, status: int) -> None:
    async def slow(_: Received) -> Response:
        await asyncio.sleep(0.7)
        return JSONResponse({}, status)

    async def scenario() -> None:
        async with Receiver.start(slow) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", batch_size=1))
            own = settings.model_copy(update={"triggerkit_public_url": receiver.url})
            took_s = await drained(own, receiver, rows=40, stop_after=1)
            assert took_s < 4
            begun = [request.batch_id for request in receiver.requests]
            assert len(begun) == len(set(begun)) < 40, "it begins nothing more"

            async def at_once(_: Received) -> Response:
                return JSONResponse({})

            receiver.answer = at_once
            async with streaming(settings, receiver):
                await receiver.until(
                    lambda: {int(m["record"]["id"]) for m in receiver.messages} == set(range(1, 41))
                )
            sent = [request.batch_id for request in receiver.requests]
            again = len(sent) - len(set(sent))
            assert again == (0 if status == 200 else len(begun))

    asyncio.run(scenario())


def test_a_push_that_hangs_holds_the_end_up_for_no_longer_than_the_grace(
    settings: Settings,
) -> None:
    async def hang(_: Received) -> Response:
        await asyncio.sleep(20)
        return JSONResponse({})

    async def scenario() -> None:
        async with Receiver.start(hang) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", batch_size=1))
            own = settings.model_copy(
                update={"triggerkit_public_url": receiver.url, "triggerkit_grace": "1s"}
            )
            took_s = await drained(own, receiver, rows=3, stop_after=1)
            assert 0.9 < took_s < 4

    asyncio.run(scenario())


def test_a_stream_whose_endpoint_is_away_ends_at_once(settings: Settings) -> None:
    async def refuse(_: Received) -> Response:
        return JSONResponse({}, 503, {"retry-after": "60"})

    async def scenario() -> None:
        async with Receiver.start(refuse) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", batch_size=1))
            own = settings.model_copy(update={"triggerkit_public_url": receiver.url})
            took_s = await drained(own, receiver, rows=3, stop_after=3)
            assert took_s < 3, "what waits to be sent again is not waited for"

    asyncio.run(scenario())
