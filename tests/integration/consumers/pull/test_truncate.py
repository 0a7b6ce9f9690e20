"""A truncate is handed out between what was written before it and what was written after it."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.integration.consumers.pull.pulling import Pulling, ids, messages, pulling
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
from triggerkit.change import RowChange, Transaction
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.consumers.pull.consumers import in_order
from triggerkit.consumers.pull.service import Puller
from triggerkit.log.entry import Pending
from triggerkit.log.writer import LogWriter
from triggerkit.lsn import Lsn
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


async def logged(pull: Pulling) -> None:
    """Log rows, a truncate of their table, and rows again."""
    await pull.log(range(1, 21))
    async with LogWriter.open(pull.url, 1) as writer:
        transaction = Transaction(Lsn(900), "2026-10-28T21:39:21.127470Z", 8)
        change = RowChange("public", "items", "truncate", (), None)
        writer.write(Pending(transaction, 0, change, 8))
        await writer.commit(900)
    pull.logged = 900
    await pull.log(range(21, 41))


def test_nothing_behind_a_truncate_is_handed_out_before_it_is_acknowledged(
    database_url: str,
) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await logged(pull)
            before = await pull.receive()
            assert sorted(ids(before)) == [*range(1, 21)]
            await pull.ack(before[1:])
            assert await pull.receive() == [], "one before it is not done"
            await pull.ack(before[:1])
            [truncate] = await pull.receive()
            assert truncate.json["action"] == "truncate"
            assert await pull.receive() == []
            await pull.nack([truncate])
            assert await pull.ack([truncate]) == [truncate.ack_id]
            [again] = await pull.receive()
            assert again.idempotency_key == truncate.idempotency_key
            assert await pull.receive() == []
            await pull.nack([again], delay_s=60)
            assert await pull.receive() == []
            await pull.expire()
            await pull.ack(await pull.receive())
            assert sorted(ids(await pull.receive())) == [*range(21, 41)]
            assert await pull.parked() == []

    asyncio.run(scenario())


def test_what_was_handed_back_before_a_truncate_is_superseded_by_it(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await logged(pull)
            before = await pull.receive()
            await pull.nack(before[:2])
            await pull.ack(before[2:])
            held = await pull.receive(2)
            assert await pull.receive() == [], "one of the table is held by a caller"
            await pull.nack(held, delay_s=60)
            [truncate] = await pull.receive()
            assert truncate.json["action"] == "truncate"
            assert [state for _, state, _ in await pull.parked()] == ["superseded", "superseded"]
            await pull.expire()
            await pull.ack([truncate])
            assert sorted(ids(await pull.receive())) == [*range(21, 41)]

    asyncio.run(scenario())


def test_a_truncate_whose_attempts_are_used_up_is_set_aside_for_good(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url, changes("items", max_attempts=2)) as pull:
            await logged(pull)
            await pull.ack(await pull.receive())
            await pull.nack(await pull.receive())
            await pull.nack(await pull.receive())
            assert sorted(ids(await pull.receive())) == [*range(21, 41)]
            assert [state for _, state, _ in await pull.parked()] == ["dead"]

    asyncio.run(scenario())
