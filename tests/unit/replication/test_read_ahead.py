"""What is read ahead of the log, and when it is taken."""

from __future__ import annotations

import asyncio
from time import monotonic

from triggerkit.change import Transaction
from triggerkit.lsn import Lsn
from triggerkit.replication.capture import TransactionPart
from triggerkit.replication.read_ahead import ReadAhead


def part() -> TransactionPart:
    return TransactionPart(Transaction(Lsn(1), "2026-10-28T21:39:21.127470Z", 1), 0)


async def is_over(waiting: asyncio.Task[None]) -> bool:
    """Whether it is, once all that is ready has gone on."""
    for _ in range(5):
        await asyncio.sleep(0)
    return waiting.done()


def test_who_takes_gets_all_that_is_there() -> None:
    async def scenario() -> None:
        ahead = ReadAhead(1000)
        first, second = part(), part()
        await ahead.put([first], 10)
        await ahead.put([second], 10)
        assert ahead.size_bytes == 20
        taken = await ahead.take()
        assert taken[0] is first
        assert taken[1] is second
        assert ahead.size_bytes == 0

    asyncio.run(scenario())


def test_what_is_too_much_waits_until_there_is_room() -> None:
    async def scenario() -> None:
        ahead = ReadAhead(100)
        await ahead.put([part()], 1000)
        putting = asyncio.create_task(ahead.put([part()], 10))
        assert not await is_over(putting)
        await ahead.take()
        await putting
        assert ahead.size_bytes == 10

    asyncio.run(scenario())


def test_little_waits_until_somebody_looked_when_it_was_due() -> None:
    async def scenario() -> None:
        ahead = ReadAhead(1000)
        ahead.due_at = monotonic() + 60
        waiting = asyncio.create_task(ahead.wait_until_due(100))
        await ahead.put([part()], 10)
        assert not await is_over(waiting)
        ahead.due_at = monotonic()
        await ahead.put([part()], 10)
        await waiting
        assert ahead.size_bytes == 20

    asyncio.run(scenario())


def test_much_does_not_wait_until_it_is_due() -> None:
    async def scenario() -> None:
        ahead = ReadAhead(1000)
        ahead.due_at = monotonic() + 60
        waiting = asyncio.create_task(ahead.wait_until_due(100))
        await ahead.put([part()], 100)
        await waiting

    asyncio.run(scenario())


def test_nobody_waits_for_a_look_that_found_nothing() -> None:
    async def scenario() -> None:
        ahead = ReadAhead(1000)
        ahead.due_at = monotonic() + 0.01
        await ahead.put([part()], 10)
        await ahead.wait_until_due(100)
        assert len(await ahead.take()) == 1

    asyncio.run(scenario())
