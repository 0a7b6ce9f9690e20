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
            await turns.wait()
            turns.sending()
        turns.answered()
        await turns.wait()

    run(scenario())


def test_of_a_busy_consumer_the_one_that_waits_longest_goes_when_a_push_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LINGER_S", 60)

    async def scenario() -> None:
        turns = Turns()
        for _ in range(BUSY):
            turns.sending()
        waiting = [asyncio.create_task(turns.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        turns.answered()
        await waiting[1]
        assert not waiting[2].done()
        turns.answered()
        await waiting[2]

    run(scenario())


def test_it_does_not_wait_for_an_endpoint_that_hangs() -> None:
    async def scenario() -> None:
        turns = Turns()
        for _ in range(BUSY):
            turns.sending()
        await turns.wait()

    run(scenario())
