"""Scenarios of backfills."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.integration.consumers.backfill.operator import Operator, Scene, operating
from tests.receiver import Receiver
from triggerkit.settings import Settings


@pytest.fixture
def scene(settings: Settings) -> Scene:
    """Run a scenario with a receiver and an operator."""

    def run(scenario: Callable[[Operator, Receiver], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with Receiver.start() as receiver, operating(settings) as operator:
                await scenario(operator, receiver)

        asyncio.run(whole())

    return run
