"""A truncate is handed out between what was written before it and what was written after it."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.integration.consumers.pull.pulling import messages
from tests.integration.pipeline import execute, streaming
from tests.integration.truncated import (
    ITEMS,
    OTHERS,
    Copy,
    rows,
    until_all_is_delivered,
    write,
)
from tests.receiver import Receiver
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.consumers.pull.consumers import in_order
from triggerkit.consumers.pull.service import Puller
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, pool

CALLERS = 4


async def work(puller: Puller, copy: Copy, seed: int) -> None:
    """Receive, apply and acknowledge, some of it late, for ever."""
    dice = random.Random(seed)
    while True:
        received = await puller.receive("test", dice.choice([1, 5, 50]))
        taken = messages(received)
        await asyncio.sleep(dice.random() * 0.02)
        copy.apply(message.json for message in taken)
        await asyncio.sleep(dice.random() * 0.02)
        # In two parts, since a caller may do so.
        for some in (taken[::2], taken[1::2]):
            if some:
                assert await puller.ack("test", [message.ack_id for message in some]) == []


@pytest.mark.parametrize(
    "definition",
    [
        pytest.param(changes("items", "others"), id="by row"),
        pytest.param(changes("items", "others", filters=[("v", "!=", "")]), id="filtered"),
        pytest.param(changes("items", "others", group_by=["id"]), id="grouped"),
    ],
)
def test_a_copy_applied_in_the_order_it_is_handed_out_is_the_table(
    settings: Settings, definition: ConsumerDefinition
) -> None:
    copy = Copy()

    async def scenario() -> None:
        async with (
            Receiver.start() as receiver,
            pool(in_order(settings.state_dsn), "test", size=CALLERS) as states,
        ):
            await execute(settings, ITEMS, OTHERS)
            async with (
                await connect(settings.source_dsn, "test") as source,
                await connect(settings.state_dsn, "test") as state,
            ):
                await apply(source, state, [Declared("test", definition, None)], "")
            async with streaming(settings, receiver), asyncio.TaskGroup() as callers:
                puller = Puller(states)
                at_work = [callers.create_task(work(puller, copy, n)) for n in range(CALLERS)]
                async with asyncio.TaskGroup() as writers:
                    for seed in range(3):
                        writers.create_task(write(settings, ["items", "others"], seed))
                await until_all_is_delivered(settings)
                for task in at_work:
                    task.cancel()
            assert copy.truncates > 5
            assert copy.tables == await rows(settings, copy.tables)

    asyncio.run(scenario())
