"""A parked message uses up attempts only for its own faults."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.parked import TABLE, carrying, parked, refuse, until_states
from tests.integration.pipeline import execute, pipeline
from tests.receiver import accept
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings

pytestmark = pytest.mark.usefixtures("short_waits")


def test_an_outage_uses_up_no_attempts(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", batch_size=10, max_attempts=3), TABLE, answer=refuse("bad")
        ) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'bad')")
            await until_states(settings, "failing")
            down = len(receiver.requests)
            receiver.answer = refuse("bad", "other", status=503)
            await execute(settings, "INSERT INTO items VALUES (2, 'other')")
            await receiver.until(
                lambda: len(carrying(receiver, "bad")) > 6 and len(receiver.requests) > down + 8
            )
            [(_, state, attempts, failures)] = await parked(settings)
            assert (state, failures <= 2) == ("failing", True)
            assert attempts > failures + 3
            receiver.answer = accept
            await until_states(settings)

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [401, 404, 429])
def test_an_answer_about_the_sender_uses_up_no_attempts(settings: Settings, status: int) -> None:
    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", batch_size=10, max_attempts=3), TABLE, answer=refuse("bad")
        ) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'bad')")
            await until_states(settings, "failing")
            receiver.answer = refuse("bad", status=status)
            before = len(carrying(receiver, "bad"))
            for number in range(2, 7):
                await execute(settings, f"INSERT INTO items VALUES ({number}, 'good')")
                await receiver.until(
                    lambda n=number: len(carrying(receiver, "bad")) >= before + n  # type: ignore[misc]
                )
            assert (await parked(settings))[0][1] == "failing"

    asyncio.run(scenario())


def test_a_message_at_which_the_endpoint_fails_while_others_go_through_uses_up_its_attempts(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", batch_size=10, max_attempts=4), TABLE, answer=refuse("bad")
        ) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'bad')")
            await until_states(settings, "failing")
            receiver.answer = refuse("bad", status=500)

            async def others() -> None:
                for number in range(2, 10_000):
                    await execute(settings, f"INSERT INTO items VALUES ({number}, 'n{number}')")
                    name = f"n{number}"
                    await receiver.until(lambda n=name: bool(carrying(receiver, n)))  # type: ignore[misc]

            busy = asyncio.create_task(others())
            await until_states(settings, "blocked")
            busy.cancel()
            await asyncio.gather(busy, return_exceptions=True)
        assert (await parked(settings))[0][3] == 4

    asyncio.run(scenario())
