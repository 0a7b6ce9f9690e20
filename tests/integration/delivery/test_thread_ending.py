"""A stop that comes while the deliveries' thread begins ends it, too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from triggerkit.delivery.credentials import Credentials
from triggerkit.delivery.direct.way import DirectWay
from triggerkit.delivery.push import Pusher
from triggerkit.delivery.thread import DeliveryThread
from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.state.connect import pool

#: What is not held up ends in far less.
AT_ONCE_S = 10.0


async def stopped(states: Callable[[], Any], settings: Settings, when: Callable[[], Any]) -> None:
    """Run deliveries, and stop them once `when` is over."""

    async def run() -> None:
        thread = DeliveryThread(
            states,
            1,
            lambda: Pusher(()),
            lambda _: Credentials(),
            lambda pool: DirectWay(settings, Project.load(), pool),
            0,
        )
        async with asyncio.TaskGroup() as group, thread.running(group):
            await asyncio.Event().wait()

    running = asyncio.create_task(run())
    await when()
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=AT_ONCE_S)
    assert done
    assert running.cancelled()


def test_a_stop_while_the_state_is_opened_ends_the_thread(settings: Settings) -> None:
    opening = threading.Event()

    @asynccontextmanager
    async def held() -> AsyncIterator[None]:
        opening.set()
        await asyncio.Event().wait()
        yield

    async def scenario() -> None:
        await stopped(held, settings, lambda: asyncio.to_thread(opening.wait))

    asyncio.run(scenario())


@pytest.mark.parametrize("turns", [1, 2, 3, 10])
def test_a_stop_at_once_ends_the_thread(settings: Settings, turns: int) -> None:
    async def some_turns() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    async def scenario() -> None:
        await stopped(lambda: pool(settings.state_dsn, "test", size=2), settings, some_turns)

    asyncio.run(scenario())
