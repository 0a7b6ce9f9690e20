"""What several ask for while one is under way is done together, and nobody is left without an
answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from triggerkit.consumers.cursors.gathered import AT_ONCE, MOST, Gathered


class Held:
    """Does what is asked for once it is let go."""

    def __init__(self) -> None:
        self.done: list[list[int]] = []
        self.go_on = asyncio.Event()
        self.error: BaseException | None = None

    async def __call__(self, some: list[int]) -> list[str | None]:
        self.done.append(some)
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return [None if one % 10 == 9 else str(one) for one in some]


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 5))


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_comes_meanwhile_goes_together_and_each_gets_its_own_answer() -> None:
    async def scenario() -> None:
        held = Held()
        gathered = Gathered(held)
        asking = [asyncio.create_task(gathered.ask(number)) for number in range(MOST + 20)]
        await turns()
        assert held.done == [[number] for number in range(AT_ONCE)]
        held.go_on.set()
        found = await asyncio.gather(*asking)
        assert found == [None if n % 10 == 9 else str(n) for n in range(MOST + 20)]
        assert [len(some) for some in held.done] == [1] * AT_ONCE + [MOST, 20 - AT_ONCE]

    run(scenario())


def test_an_error_is_told_to_all_of_its_statement_and_the_next_is_done() -> None:
    async def scenario() -> None:
        held = Held()
        gathered = Gathered(held)
        asking = [asyncio.create_task(gathered.ask(number)) for number in range(5)]
        await turns()
        held.error = ValueError()
        held.go_on.set()
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(one) for one in found] == [ValueError] * 5
        held.error = None
        assert await gathered.ask(1) == "1"

    run(scenario())


def test_who_is_canceled_waits_for_what_is_under_way_and_for_nothing_else() -> None:
    async def scenario() -> None:
        held = Held()
        gathered = Gathered(held)
        under_way = [asyncio.create_task(gathered.ask(number)) for number in range(AT_ONCE)]
        await turns()
        waiting = asyncio.create_task(gathered.ask(7))
        await turns()
        for task in (*under_way, waiting):
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not any(task.done() for task in under_way)
        held.go_on.set()
        await asyncio.wait(under_way)
        assert all(task.cancelled() for task in under_way)
        assert held.done == [[number] for number in range(AT_ONCE)]
        assert await gathered.ask(3) == "3"

    run(scenario())
