"""Deliveries end while something of theirs is still being started."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import pytest

from tests.integration.parked import TABLE, fetch
from tests.integration.pipeline import declare, execute
from tests.receiver import Receiver
from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursors.store import CursorStore
from triggerkit.consumers.definition import changes
from triggerkit.delivery.consumer_delivery import ConsumerDelivery
from triggerkit.delivery.credentials import Credentials
from triggerkit.delivery.direct.way import DirectWay
from triggerkit.delivery.loop import DeliveryLoop
from triggerkit.delivery.push import Pusher
from triggerkit.log.reader import LogReader
from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.state.connect import pool


def test_a_consumer_that_is_started_while_the_deliveries_end_is_ended_with_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its functions' process is ended, no coroutine is left, and no error covers the end."""
    ended: list[str] = []
    end = ConsumerDelivery.end

    async def noted(self: ConsumerDelivery) -> None:
        await end(self)
        ended.append(self.consumer.name)

    held, go_on = asyncio.Event(), asyncio.Event()
    load = CursorStore.load

    async def held_after_load(self: CursorStore, consumer: Consumer) -> Any:
        cursors = await load(self, consumer)
        held.set()
        await go_on.wait()
        return cursors

    async def scenario() -> None:
        await execute(settings, TABLE)
        async with Receiver.start() as receiver:
            await declare(settings, receiver, changes("items"))
        [(database_id,)] = await fetch(settings, "SELECT id FROM triggerkit.databases")
        monkeypatch.setattr(CursorStore, "load", held_after_load)
        monkeypatch.setattr(ConsumerDelivery, "end", noted)
        async with pool(settings.state_dsn, "test", size=4) as states:
            group = asyncio.TaskGroup()
            store = CursorStore(states, database_id)
            reader = LogReader(states, database_id, 0)
            direct = DirectWay(settings, Project.load(), states)
            loop = DeliveryLoop(reader, store, Pusher(()), lambda _: Credentials(), direct, group)

            async def deliver() -> None:
                async with group:
                    group.create_task(lane_that_ends_late())
                    await asyncio.Event().wait()

            async def lane_that_ends_late() -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    go_on.set()
                    await asyncio.wait({refreshing})

            delivering = asyncio.create_task(deliver())
            # As another thread's call: not one of the group's tasks.
            refreshing = asyncio.create_task(loop.refresh())
            await held.wait()
            delivering.cancel()
            await asyncio.wait({delivering, refreshing})
        assert delivering.cancelled()
        assert refreshing.cancelled()

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="coroutine .* was never awaited")
        asyncio.run(scenario())
        gc.collect()
    assert ended == ["test"]
