"""A process that runs the project's code is ended at once, whatever state it is in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from tests.integration.consumers.calls import answering
from triggerkit.consumers.calls.process import MESSAGE, Process

#: What ends at once takes far less.
AT_ONCE_S = 5.0

#: What asyncio takes in of an answer, before it lets the process wait.
TAKEN_IN_BYTES = 2 * 1024 * 1024


async def started() -> Process:
    return await Process.start(answering.__name__, "the tests' code")


async def reap(process: Process) -> None:
    async with asyncio.timeout(AT_ONCE_S):
        await process.reap()


async def until(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0)


def is_alive(pid: int) -> bool:
    """Whether a process runs; who was killed may wait for whoever is to take note of it."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_requests_are_answered_in_order() -> None:
    async def scenario() -> None:
        process = await started()
        for number in range(3):
            process.write(MESSAGE, str(number).encode())
        assert [await process.read() for _ in range(3)] == [
            (b"R", b"0"),
            (b"R", b"1"),
            (b"R", b"2"),
        ]
        await reap(process)

    asyncio.run(scenario())


def test_it_ends_with_an_answer_that_nobody_reads_any_more() -> None:
    async def scenario() -> None:
        process = await started()
        process.write(MESSAGE, b"much")
        # The answer has come as far as it is taken in, and who waited for it is gone.
        async with asyncio.timeout(AT_ONCE_S):
            await until(lambda: len(process.reader._buffer) > TAKEN_IN_BYTES)  # type: ignore[attr-defined]
        await reap(process)

    asyncio.run(scenario())


def test_it_ends_while_a_request_is_on_its_way() -> None:
    async def scenario() -> None:
        process = await started()
        process.write(MESSAGE, b"much")
        process.write(MESSAGE, bytes(answering.MANY_BYTES))
        await reap(process)

    asyncio.run(scenario())


def test_what_it_started_ends_with_it() -> None:
    async def scenario() -> None:
        process = await started()
        process.write(MESSAGE, b"child")
        _, answer = await process.read()
        await reap(process)
        async with asyncio.timeout(AT_ONCE_S):
            await until(lambda: not is_alive(int(answer)))

    asyncio.run(scenario())


def test_one_that_has_ended_by_itself_is_reaped() -> None:
    async def scenario() -> None:
        process = await started()
        process.write(MESSAGE, b"end")
        with pytest.raises((asyncio.IncompleteReadError, OSError)):
            await process.read()
        await reap(process)
        with pytest.raises(ProcessLookupError):
            os.kill(process.process.pid, 0)

    asyncio.run(scenario())
