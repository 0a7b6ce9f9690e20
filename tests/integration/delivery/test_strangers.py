"""What a receiver answers and what strangers write into the WAL ends no stream."""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.parked import TABLE, fetch, until_states
from tests.integration.pipeline import execute, pipeline
from tests.receiver import Received
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings


def test_a_failed_item_whose_error_no_database_can_store_is_parked(settings: Settings) -> None:
    async def name_the_first(received: Received) -> Response:
        failed = [
            {"idempotency_key": m["metadata"]["idempotency_key"], "error": "bad\x00 \x1b[2Jword"}
            for m in received.messages
            if m["record"]["id"] == 1
        ]
        return JSONResponse({"failed": failed})

    async def scenario() -> None:
        async with pipeline(
            settings, changes("items", batch_size=10), TABLE, answer=name_the_first
        ) as receiver:
            await execute(settings, "INSERT INTO items VALUES (1, 'x'), (2, 'x')")
            await receiver.until(lambda: len(receiver.messages) >= 2)
            await until_states(settings, "failing")
            await execute(settings, "INSERT INTO items VALUES (3, 'x')")
            await receiver.until(lambda: "3" in [k for r in receiver.requests for k in r.keys])
        [(reason,)] = await fetch(settings, "SELECT reason FROM triggerkit.parked")
        assert reason == "bad\ufffd \ufffd[2Jword"

    asyncio.run(scenario())


@pytest.mark.parametrize("content", ["'x'", "'1'", "''", "'\\xff3a'::bytea"])
def test_a_strangers_message_under_our_prefix_does_not_end_the_stream(
    settings: Settings, content: str
) -> None:
    async def scenario() -> None:
        async with pipeline(settings, changes("items", batch_size=10), TABLE) as receiver:
            await execute(
                settings,
                f"SELECT pg_logical_emit_message(true, 'triggerkit.chunk', {content})",
                "INSERT INTO items VALUES (1, 'x')",
            )
            await receiver.until(lambda: len(receiver.messages) == 1)

    asyncio.run(scenario())
