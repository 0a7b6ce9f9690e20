"""Capture waits for no consumer: neither for those that are behind, nor for what they compute."""

from __future__ import annotations

import asyncio
import time

from tests.integration.parked import command, until
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings

CONSUMERS = 40
ROWS = 4000


def test_the_stream_is_ready_and_captures_while_many_consumers_are_far_behind(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, "CREATE TABLE items (id bigint PRIMARY KEY, name text)")
            for number in range(CONSUMERS):
                definition = changes("items", filters=[("name", "==", "wanted")])
                await declare(settings, receiver, definition, f"consumer-{number}")
            await set_state("paused")
            insert = f"INSERT INTO items SELECT generate_series(1, {ROWS}), repeat('x', 200)"
            async with streaming(settings, receiver):
                await execute(settings, insert)
                await until_logged(ROWS)
            await set_state("active")
            begun = time.monotonic()
            async with streaming(settings, receiver):
                ready_s = time.monotonic() - begun
                await execute(settings, "INSERT INTO items VALUES (0, 'wanted')")
                await until_logged(ROWS + 1)
                logged_s = time.monotonic() - begun
                await receiver.until(lambda: len(receiver.requests) == CONSUMERS, timeout_s=60)
                delivered_s = time.monotonic() - begun
            assert logged_s < delivered_s / 2, (ready_s, logged_s, delivered_s)

    async def until_logged(position: int) -> None:
        await until(
            settings,
            "SELECT next_position - 1 FROM triggerkit.databases",
            lambda rows: rows == [(position,)],
        )

    async def set_state(wanted: str) -> None:
        await command(
            settings,
            lambda state: state.execute("UPDATE triggerkit.consumers SET state = %s", [wanted]),
        )

    asyncio.run(scenario())
