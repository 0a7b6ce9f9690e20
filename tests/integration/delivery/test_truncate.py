"""A truncate is delivered between what was written before it and what was written after it."""

from __future__ import annotations

import asyncio
import random

import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.parked import until
from tests.integration.pipeline import declare, execute, pipeline, streaming
from tests.integration.truncated import (
    ITEMS,
    OTHERS,
    Copy,
    rows,
    until_all_is_delivered,
    values,
    write,
)
from tests.receiver import Received, Receiver, accept
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.settings import Settings

pytestmark = pytest.mark.usefixtures("short_waits")


@pytest.mark.parametrize(
    "definition",
    [
        pytest.param(changes("items", "others", batch_size=20), id="batches"),
        pytest.param(changes("items", "others"), id="one by one"),
        pytest.param(changes("items", "others", concurrency=2, batch_size=5), id="two at once"),
        pytest.param(changes("items", "others", group_by=["id"], batch_size=20), id="grouped"),
        pytest.param(changes("items", "others", batch_timeout_s=0.05, batch_size=20), id="filled"),
    ],
)
def test_a_copy_applied_in_the_order_of_delivery_is_the_table(
    settings: Settings, definition: ConsumerDefinition
) -> None:
    copy = Copy()
    dice = random.Random(3)

    async def apply_late(received: Received) -> Response:
        await asyncio.sleep(dice.random() * 0.02)
        copy.apply(received.messages)
        await asyncio.sleep(dice.random() * 0.02)
        return JSONResponse({})

    async def scenario() -> None:
        async with Receiver.start(apply_late) as receiver:
            await execute(settings, ITEMS, OTHERS)
            await declare(settings, receiver, definition)
            async with streaming(settings, receiver):
                async with asyncio.TaskGroup() as group:
                    for seed in range(3):
                        group.create_task(write(settings, ["items", "others"], seed))
                await until_all_is_delivered(settings)
            assert copy.truncates > 5
            assert copy.tables == await rows(settings, copy.tables)

    asyncio.run(scenario())


def test_nothing_overtakes_a_truncate_and_it_overtakes_nothing(settings: Settings) -> None:
    hang: dict[str, asyncio.Event] = {"slow": asyncio.Event(), "": asyncio.Event()}

    async def slow(received: Received) -> Response:
        for value in values([received]):
            if value in hang:
                await hang[value].wait()
        return JSONResponse({})

    async def scenario() -> None:
        definition = changes("items", "others")
        async with pipeline(settings, definition, ITEMS, OTHERS, answer=slow) as receiver:
            await execute(
                settings,
                "INSERT INTO items SELECT n, 'before' FROM generate_series(1, 20) n",
                "INSERT INTO items VALUES (21, 'slow')",
                "TRUNCATE items",
                "INSERT INTO items SELECT n, 'after' FROM generate_series(1, 20) n",
            )
            await receiver.until(lambda: values(receiver.requests).count("before") == 20)
            logged = "SELECT count(*) FROM triggerkit.events WHERE record LIKE '%after%'"
            await until(settings, logged, lambda found: found == [(20,)])
            assert len(receiver.requests) == 21
            hang["slow"].set()
            await receiver.until(lambda: "" in values(receiver.requests))
            assert len(receiver.requests) == 22
            hang[""].set()
            await receiver.until(lambda: values(receiver.requests).count("after") == 20)

    asyncio.run(scenario())


def test_after_a_crash_a_truncate_of_unknown_outcome_is_sent_before_what_is_behind_it(
    settings: Settings,
) -> None:
    async def hang_at_a_truncate(received: Received) -> Response:
        if values([received]) == [""]:
            await asyncio.Event().wait()
        return JSONResponse({})

    async def scenario() -> None:
        async with Receiver.start(hang_at_a_truncate) as receiver:
            await execute(settings, ITEMS)
            await declare(settings, receiver, changes("items"))
            async with streaming(settings, receiver):
                await execute(
                    settings,
                    "INSERT INTO items SELECT n, 'before' FROM generate_series(1, 20) n",
                    "TRUNCATE items",
                    "INSERT INTO items SELECT n, 'after' FROM generate_series(1, 20) n",
                )
                await receiver.until(lambda: "" in values(receiver.requests))
            receiver.answer = accept
            async with streaming(settings, receiver):
                await receiver.until(lambda: values(receiver.requests).count("after") == 20)
            assert values(receiver.requests) == ["before"] * 20 + ["", ""] + ["after"] * 20

    asyncio.run(scenario())


def test_one_that_is_not_wanted_holds_nothing(settings: Settings) -> None:
    async def hang_at_slow(received: Received) -> Response:
        if "slow" in values([received]):
            await asyncio.Event().wait()
        return JSONResponse({})

    async def scenario() -> None:
        definition = changes("items", actions=["insert"])
        async with pipeline(settings, definition, ITEMS, answer=hang_at_slow) as receiver:
            await execute(
                settings,
                "INSERT INTO items VALUES (21, 'slow')",
                "TRUNCATE items",
                "INSERT INTO items SELECT n, 'after' FROM generate_series(1, 20) n",
            )
            await receiver.until(lambda: values(receiver.requests).count("after") > 10)
            assert "" not in values(receiver.requests)

    asyncio.run(scenario())


def test_with_a_backfill_under_way_too_a_copy_is_the_table(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were read before the truncate do not come after it."""
    monkeypatch.setattr("triggerkit.consumers.backfill.chunk.FIRST_ROWS", 20)
    monkeypatch.setattr("triggerkit.consumers.backfill.chunk.MOST_ROWS", 100)
    copy = Copy()

    async def apply(received: Received) -> Response:
        copy.apply(received.messages)
        return JSONResponse({})

    async def scenario() -> None:
        async with Receiver.start(apply) as receiver:
            await execute(
                settings, ITEMS, "INSERT INTO items SELECT n, 'old' FROM generate_series(1, 5000) n"
            )
            await declare(settings, receiver, changes("items", start="beginning", batch_size=20))
            async with streaming(settings, receiver):
                await receiver.until(lambda: len(copy.tables.get("items", ())) > 100)
                await write(settings, ["items"], 1, 20)
                await execute(settings, "TRUNCATE items")
                await write(settings, ["items"], 2, 20)
                active = "SELECT count(*) FROM triggerkit.backfills WHERE finished_at IS NULL"
                await until(settings, active, lambda found: found == [(0,)])
                await until_all_is_delivered(settings)
            assert copy.tables == await rows(settings, copy.tables)

    asyncio.run(scenario())
