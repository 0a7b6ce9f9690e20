"""How fast backfills read: several at once, no faster than consumers follow, as progress tells."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.consumers.backfill.operator import Operator, Scene, prepared
from tests.integration.pipeline import declare, streaming
from tests.receiver import Receiver
from triggerkit.consumers.backfill import scheduler, throttle
from triggerkit.consumers.definition import changes, rows


def keys(receiver: Receiver) -> list[str]:
    return [m["metadata"]["record_pks"][0] for m in receiver.messages]


def test_several_are_read_at_once_and_the_rest_in_their_turn(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MOST_AT_ONCE", 2)

    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 400, batch_size=100)
        for number in (1, 2, 3):
            definition = changes("items", batch_size=100)
            await declare(operator.settings, receiver, definition, name=f"c{number}")
        ids = [await operator.start(f"c{n}", rows_per_s=200) for n in (1, 2, 3)]
        async with streaming(operator.settings, receiver):
            await operator.until_read(ids[0], 1)
            await operator.until_read(ids[1], 1)
            assert (await operator.span(ids[2]))[0] is None, "the third waits for its turn"
            await operator.store.pause(ids[0])
            await operator.until_read(ids[2], 1)
            assert (await operator.one(ids[1])).state == "active"
            await operator.store.resume(ids[0])
            for backfill_id in ids:
                await operator.until_state(backfill_id, "completed")

    scene(scenario)


def test_a_backfill_waits_for_a_consumer_that_does_not_follow(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "MOST_OUTSTANDING_ROWS", 1_000)
    monkeypatch.setattr("triggerkit.consumers.backfill.table.MOST_ROWS", 200)

    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 4_000, batch_size=100)
        go_on = asyncio.Event()

        async def slow(_received: Any) -> Response:
            await go_on.wait()
            return JSONResponse({})

        receiver.answer = slow
        backfill_id = await operator.start()
        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill_id, 1_001)
        # The next stream finds in the log what the one before has put there.
        async with streaming(operator.settings, receiver):
            # Another one reads the whole table meanwhile: its consumer follows.
            await declare(operator.settings, receiver, rows("items"), name="paused")
            await operator.until_read(backfill_id + 1, 1_001)
            waiting = await operator.one(backfill_id)
            assert waiting.rows_read <= 1_200
            assert waiting.state == "active"
            go_on.set()
            await operator.until_state(backfill_id, "completed")
            await receiver.until(lambda: len(set(keys(receiver))) == 4_000)

    scene(scenario)


def test_progress_tells_rows_rate_and_remaining_time(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 2_000, batch_size=100)
        backfill_id = await operator.start(rows_per_s=500)
        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill_id, 700)
            progress = await operator.one(backfill_id)
            assert progress.rows_estimated == 2_000
            assert 35 <= progress.percent < 100
            assert progress.rows_per_s is not None
            assert 100 < progress.rows_per_s < 1_000, "the limit is 500"
            assert progress.eta_s is not None
            assert 0 < progress.eta_s < 20

    scene(scenario)
