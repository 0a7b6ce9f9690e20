"""Whoever reads the log waits for more of it while much is about to come."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import pytest
from psycopg_pool import AsyncConnectionPool

from triggerkit.log import reader as module
from triggerkit.log.entry import Entry
from triggerkit.log.reader import ALL_PARTITIONS, LogReader


def entries(first: int, last: int, partition: int = 3) -> list[Entry]:
    return [
        Entry(
            position, partition, "public", "items", f'["{position}"]', "insert", 1, position,
            "2026-01-01T00:00:00.000000Z", 7, b"{}", None, (),
        )
        for position in range(first, last + 1)
    ]  # fmt: skip


def empty() -> LogReader:
    return LogReader(cast("AsyncConnectionPool", None), 1, 0)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 5))


@pytest.mark.parametrize("partition", [3, ALL_PARTITIONS])
def test_while_the_log_grows_a_batch_waits_until_it_is_full(
    monkeypatch: pytest.MonkeyPatch, partition: int
) -> None:
    monkeypatch.setattr(module, "FILL_S", 60)

    async def scenario() -> None:
        log = empty()
        log.appended(entries(1, 10), 10, is_growing=True)
        filling = asyncio.create_task(log.fill(partition, 0, 30))
        log.appended(entries(11, 29), 29, is_growing=True)
        await asyncio.sleep(0)
        assert not filling.done()
        log.appended(entries(30, 31), 31, is_growing=True)
        assert await filling
        assert await log.fill(partition, 0, 31)

    run(scenario())


def test_what_is_there_goes_at_once_when_nothing_more_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FILL_S", 60)

    async def scenario() -> None:
        log = empty()
        log.appended(entries(1, 10), 10)
        assert not await log.fill(3, 0, 30)
        log.appended(entries(11, 20), 20, is_growing=True)
        filling = asyncio.create_task(log.fill(3, 0, 30))
        await asyncio.sleep(0)
        log.appended(entries(21, 22), 22)
        assert not await filling

    run(scenario())


def test_what_has_to_be_read_back_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILL_S", 60)

    async def scenario() -> None:
        log = empty()
        log.appended([], 1000)
        log.appended(entries(1001, 1002), 1002, is_growing=True)
        assert not await log.fill(3, 990, 30)

    run(scenario())


def test_a_table_of_which_little_comes_does_not_wait_long() -> None:
    async def scenario() -> None:
        log = empty()
        log.appended(entries(1, 1), 1, is_growing=True)
        assert not await log.fill(3, 0, 2)

    run(scenario())
