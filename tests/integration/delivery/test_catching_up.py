"""What a consumer that is behind costs: few reads, and a place that others see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.parked import TABLE, command, fetch, until
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.log.entry import Entry
from triggerkit.log.reader import LogReader
from triggerkit.settings import Settings

ROWS = 1000


async def fall_behind(
    settings: Settings, receiver: Receiver, definition: ConsumerDefinition
) -> None:
    await execute(settings, TABLE)
    await declare(settings, receiver, definition)
    await command(settings, lambda s: s.execute("UPDATE triggerkit.consumers SET state = 'paused'"))
    async with streaming(settings, receiver):
        await execute(settings, f"INSERT INTO items SELECT generate_series(1, {ROWS}), 'x'")
        logged = "SELECT next_position - 1 FROM triggerkit.databases"
        await until(settings, logged, lambda rows: rows == [(ROWS,)])
    await command(settings, lambda s: s.execute("UPDATE triggerkit.consumers SET state = 'active'"))


def test_one_read_of_the_log_is_for_many_batches(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    read_stored = LogReader.read_stored

    async def counted(self: LogReader, *place: Any) -> list[Entry]:
        entries = await read_stored(self, *place)
        reads.append(len(entries))
        return entries

    monkeypatch.setattr(LogReader, "read_stored", counted)

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await fall_behind(settings, receiver, changes("items"))
            async with streaming(settings, receiver):
                await receiver.until(lambda: len(receiver.messages) == ROWS, timeout_s=60)
            positions = [m["metadata"]["position"] for m in receiver.messages]
            assert sorted(positions) == [*range(1, ROWS + 1)]

    asyncio.run(scenario())
    assert sum(reads) <= 2 * ROWS


def test_a_consumer_that_wants_nothing_stores_how_far_it_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.delivery.lane.PASSED_UNSTORED", 100)

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            definition = changes("items", filters=[("name", "==", "wanted")])
            await fall_behind(settings, receiver, definition)
            async with streaming(settings, receiver):
                await until(
                    settings,
                    "SELECT min(position) FROM triggerkit.cursors",
                    lambda rows: rows[0][0] >= ROWS - 100,
                )
            assert receiver.requests == []
            assert await fetch(settings, "SELECT FROM triggerkit.deliveries") == []

    asyncio.run(scenario())
