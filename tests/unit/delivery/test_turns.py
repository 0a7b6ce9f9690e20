"""When a batch that is not full goes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from triggerkit.delivery import turns as module
from triggerkit.delivery.turns import BUSY, Turns


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 5))


def test_it_goes_at_once_unless_the_consumer_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_S", 60)

    async def scenario() -> None:
        turns = Turns()
        for _ in range(BUSY):
            await turns.take(is_full=False)
        await turns.take(is_full=True)
        turns.give_back()
        turns.give_back()
        await turns.take(is_full=False)

    run(scenario())


def test_of_a_busy_consumer_the_one_that_waits_longest_goes_when_a_push_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LINGER_S", 60)

    async def scenario() -> None:
        turns = Turns()
        for _ in range(BUSY):
            await turns.take(is_full=False)
        waiting = [asyncio.create_task(turns.take(is_full=False)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        turns.give_back()
        await waiting[1]
        assert not waiting[2].done()
        turns.give_back()
        await waiting[2]

    run(scenario())


def test_it_does_not_wait_for_an_endpoint_that_hangs() -> None:
    async def scenario() -> None:
        turns = Turns()
        for _ in range(BUSY):
            await turns.take(is_full=False)
        await turns.take(is_full=False)

    run(scenario())
