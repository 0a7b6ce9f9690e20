"""A truncate that its receiver refuses, or fails at."""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.parked import until_states
from tests.integration.pipeline import execute, pipeline
from tests.integration.truncated import ITEMS, until_all_is_delivered, values
from tests.receiver import Received, Receiver
from triggerkit.consumers.definition import changes
from triggerkit.consumers.parked.manage import list_parked, retry_parked
from triggerkit.errors import NotRetryable
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

pytestmark = pytest.mark.usefixtures("short_waits")

WRITES = [
    "INSERT INTO items SELECT n, 'before' FROM generate_series(1, 20) n",
    "TRUNCATE items",
    "INSERT INTO items SELECT n, 'after' FROM generate_series(1, 20) n",
]


def sent(receiver: Receiver) -> list[str]:
    """The values that came, but for the one that all was waited for by."""
    return [value for value in values(receiver.requests) if value != "last"]


def named(received: Received) -> Response:
    """Name all that came as failed."""
    keys = [m["metadata"]["idempotency_key"] for m in received.messages]
    return JSONResponse({"failed": [{"idempotency_key": key, "error": "busy"} for key in keys]})


def test_one_that_is_refused_is_set_aside_for_good_and_what_is_behind_it_goes_on(
    settings: Settings,
) -> None:
    """Sent again later, it would empty what was written since."""

    async def refuse_truncates(received: Received) -> Response:
        return JSONResponse({}, status_code=422 if "" in values([received]) else 200)

    async def scenario() -> None:
        definition = changes("items")
        async with pipeline(settings, definition, ITEMS, answer=refuse_truncates) as receiver:
            await execute(settings, *WRITES)
            await until_all_is_delivered(settings)
            assert sent(receiver) == [*["before"] * 20, "", *["after"] * 20]
            await until_states(settings, "dead")
            async with await connect(settings.state_dsn, "test") as state:
                assert await retry_parked(state, "test", "test") == 0
                [parked] = (await list_parked(state)).messages
                with pytest.raises(NotRetryable, match="backfill start test"):
                    await retry_parked(state, "test", "test", position=parked.position)

    asyncio.run(scenario())


def test_one_that_is_named_as_failed_is_sent_again_in_its_place(settings: Settings) -> None:
    async def fail_twice(received: Received) -> Response:
        is_truncate = values([received]) == [""]
        is_early = sent(receivers[0]).count("") < 3
        return named(received) if is_truncate and is_early else JSONResponse({})

    receivers: list[Receiver] = []

    async def scenario() -> None:
        definition = changes("items")
        async with pipeline(settings, definition, ITEMS, answer=fail_twice) as receiver:
            receivers.append(receiver)
            await execute(settings, *WRITES)
            await until_all_is_delivered(settings)
            assert sent(receiver) == [*["before"] * 20, *[""] * 3, *["after"] * 20]
            assert len({r.batch_id for r in receiver.requests if values([r]) == [""]}) == 1
            await until_states(settings)

    asyncio.run(scenario())


@pytest.mark.parametrize("policy", ["block", "skip"])
def test_one_whose_attempts_are_used_up_is_set_aside_for_good(
    settings: Settings, policy: str
) -> None:
    async def fail_truncates(received: Received) -> Response:
        return named(received) if values([received]) == [""] else JSONResponse({})

    async def scenario() -> None:
        definition = changes("items", max_attempts=2, on_exhausted=policy)  # type: ignore[arg-type]
        async with pipeline(settings, definition, ITEMS, answer=fail_truncates) as receiver:
            await execute(settings, *WRITES)
            await until_all_is_delivered(settings)
            assert sent(receiver) == [*["before"] * 20, "", "", *["after"] * 20]
            await until_states(settings, "dead")

    asyncio.run(scenario())
