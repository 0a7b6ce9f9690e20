"""Messages become the same runs by our webhook routes and directly."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.conformance.ways import Via, declare, made, streaming
from tests.integration.parked import TABLE, until
from tests.integration.pipeline import execute
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings

COUNT = "SELECT coalesce(sum(coalesce(items, 1)), 0) FROM triggerkit.runs"


@pytest.fixture(params=["webhook", "direct"])
def via(request: pytest.FixtureRequest) -> Via:
    way: Via = request.param
    return way


async def until_taken(settings: Settings, count: int) -> None:
    """Wait until so many messages are in runs."""
    await until(settings, COUNT, lambda rows: rows[0][0] >= count)


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
