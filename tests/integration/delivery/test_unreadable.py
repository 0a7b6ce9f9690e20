"""What a receiver answers that is too much, or asks for too little time."""

from __future__ import annotations

import asyncio
import time

import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.parked import TABLE, until, until_states
from tests.integration.pipeline import execute, pipeline
from tests.receiver import Received
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings

ROWS = 160


@pytest.mark.usefixtures("short_waits")
def test_items_named_in_an_answer_that_is_too_large_to_be_read_are_not_lost(
    settings: Settings,
) -> None:
    async def name_all(received: Received) -> Response:
        keys = [m["metadata"]["idempotency_key"] for m in received.messages]
        return JSONResponse(
            {"failed": [{"idempotency_key": k, "error": "x" * 100_000} for k in keys]}
        )

    async def scenario() -> None:
        definition = changes("items", batch_size=100, max_attempts=1)
        async with pipeline(settings, definition, TABLE, answer=name_all):
            await execute(settings, f"INSERT INTO items SELECT generate_series(1, {ROWS}), 'x'")
            await until(
                settings,
                "SELECT count(*) FROM triggerkit.parked WHERE state = 'blocked'",
                lambda rows: rows == [(ROWS,)],
            )

    asyncio.run(scenario())


@pytest.mark.usefixtures("short_waits")
def test_an_item_named_that_was_not_sent_makes_no_delivery(settings: Settings) -> None:
    is_well = False

    async def name_another(_received: Received) -> Response:
        return JSONResponse({} if is_well else {"failed": [{"idempotency_key": "other"}]})

    async def scenario() -> None:
        nonlocal is_well
        async with pipeline(settings, changes("items"), TABLE, answer=name_another) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'one')")
            await receiver.until(lambda: len(receiver.requests) == 3)
            error = "SELECT last_error FROM triggerkit.consumers"
            expected = [("answered 200, but it names items as failed that were not sent",)]
            await until(settings, error, lambda rows: rows == expected)
            is_well = True
            await until(settings, error, lambda rows: rows == [(None,)])

    asyncio.run(scenario())


@pytest.mark.parametrize("asked", ["0", "-5", "nan", "0.001", "Mon, 01 Jan 2024 00:00:00 GMT"])
def test_an_endpoint_that_asks_for_no_wait_is_waited_for_all_the_same(
    settings: Settings, asked: str
) -> None:
    async def fail(_received: Received) -> Response:
        return JSONResponse({}, 503, headers={"retry-after": asked})

    async def scenario() -> None:
        async with pipeline(settings, changes("items"), TABLE, answer=fail) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'one')")
            await receiver.until(lambda: len(receiver.requests) == 1)
            begun = time.monotonic()
            await receiver.until(lambda: len(receiver.requests) == 3)
        assert time.monotonic() - begun > 2.5

    asyncio.run(scenario())


def test_an_item_whose_receiver_asks_for_no_wait_is_waited_for_all_the_same(
    settings: Settings,
) -> None:
    async def fail(received: Received) -> Response:
        (key,) = [m["metadata"]["idempotency_key"] for m in received.messages]
        return JSONResponse({"failed": [{"idempotency_key": key, "retry_after_s": 0}]})

    async def scenario() -> None:
        async with pipeline(settings, changes("items"), TABLE, answer=fail) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'one')")
            await until_states(settings, "failing")
            begun = time.monotonic()
            await receiver.until(lambda: len(receiver.requests) == 3)
        assert time.monotonic() - begun > 2.5

    asyncio.run(scenario())
