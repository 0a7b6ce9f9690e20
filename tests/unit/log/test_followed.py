"""Only changes that may be for a consumer wake it, and none of those is left out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, cast

import pytest
from psycopg_pool import AsyncConnectionPool

from triggerkit.log import reader as module
from triggerkit.log import tail
from triggerkit.log.entry import ALL_PARTITIONS, NOBODY, PARTITIONS, Entry, Subject
from triggerkit.log.followed import note_moves
from triggerkit.log.reader import LogReader

ITEMS: Subject = ("public", "items")
ORDERS: Subject = ("public", "orders")


def entry(position: int, table: str = "items", partition: int = 3, **given: Any) -> Entry:
    return Entry(
        position, partition, "public", table, f'["{position}"]', "insert", 1, position,
        "2026-01-01T00:00:00.000000Z", 7, b"{}", None, (),
    )._replace(**given)  # fmt: skip


def empty(head: int = 0) -> LogReader:
    return LogReader(cast("AsyncConnectionPool", None), 1, head)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 5))


def test_changes_of_other_tables_wake_nobody_and_are_passed_over() -> None:
    async def scenario() -> None:
        log = empty(100)
        quiet = log.follow(frozenset([ORDERS, 5]))
        waiting = asyncio.create_task(quiet.wait(3, 100))
        log.appended([entry(position) for position in range(101, 201)], 200)
        await asyncio.sleep(0)
        assert not waiting.done()
        assert quiet.has_nothing_after(3, 100)
        log.appended([entry(201), entry(202, "orders")], 202)
        assert await waiting == 201
        assert [e.position for e in await log.read(3, 201, 10, quiet)] == [202]

    run(scenario())


@pytest.mark.parametrize(
    ("given", "is_followed"),
    [
        ({"consumer_id": 5, "table": "items"}, True),
        ({"consumer_id": 6, "table": "orders"}, False),
        ({"consumer_id": NOBODY, "table": "orders"}, True),
        ({"consumer_id": NOBODY, "table": "items"}, False),
        ({"partition": 4, "table": "orders"}, False),
    ],
    ids=["own backfill", "other's backfill", "own echo", "other echo", "other partition"],
)
def test_what_is_followed_is_its_tables_and_what_is_for_it_alone(
    given: dict[str, Any], is_followed: bool
) -> None:
    async def scenario() -> None:
        log = empty()
        followed = log.follow(frozenset([ORDERS, 5]))
        log.appended([entry(1, **given)], 1)
        assert followed.has_nothing_after(3, 0) is not is_followed
        assert followed.has_nothing_after(ALL_PARTITIONS, 0) is (
            not is_followed and given.get("partition") is None
        )

    run(scenario())


def test_what_was_not_kept_in_memory_may_be_for_everybody() -> None:
    async def scenario() -> None:
        log = empty(10)
        followed = log.follow(frozenset([ORDERS]))
        waiting = asyncio.create_task(followed.wait(3, 10))
        await asyncio.sleep(0)
        log.appended([], 1000)
        log.appended([entry(1001, "orders")], 1001)
        assert await waiting == 10

    run(scenario())


def test_where_it_is_known_what_was_not_kept_it_wakes_only_those_that_follow_it() -> None:
    async def scenario() -> None:
        log = empty(10)
        followed, quiet = log.follow(frozenset([ORDERS])), log.follow(frozenset([ITEMS]))
        waiting = asyncio.create_task(followed.wait(3, 10))
        await asyncio.sleep(0)
        moves = note_moves([entry(400, "orders"), entry(700, "orders")], {})
        log.appended([], 1000, moves=moves)
        assert await waiting == 399
        assert not followed.has_nothing_after(3, 699)
        assert followed.has_nothing_after(3, 700)
        assert quiet.has_nothing_after(3, 10)
        assert not log.has_nothing_after(3, 699)

    run(scenario())


def test_of_what_was_logged_before_nothing_is_known() -> None:
    async def scenario() -> None:
        log = empty(10)
        followed = log.follow(frozenset([ORDERS]))
        assert await followed.wait(3, 9) == 9
        assert not followed.has_nothing_after(3, 9)
        log.refollow(followed, frozenset([ITEMS]))
        log.appended([entry(11, "orders")], 11)
        assert followed.has_nothing_after(3, 10)
        log.appended([entry(12)], 12)
        assert not followed.has_nothing_after(3, 10)
        log.unfollow(followed)
        log.appended([entry(13)], 13)
        assert followed.has_nothing_after(3, 12)

    run(scenario())


def test_what_is_followed_fills_a_batch_and_the_end_of_growth_ends_the_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FILL_S", 60)

    async def scenario() -> None:
        log = empty()
        followed = log.follow(frozenset([ORDERS]))
        log.appended([entry(1, "orders"), entry(2), entry(3)], 3, is_growing=True)
        filling = asyncio.create_task(log.fill(3, 0, 2, followed))
        await asyncio.sleep(0)
        assert not filling.done()
        log.appended([entry(4, "orders")], 4, is_growing=True)
        assert await filling
        filling = asyncio.create_task(log.fill(3, 0, 3, followed))
        await asyncio.sleep(0)
        log.appended([entry(5)], 5)
        assert not await filling

    run(scenario())


@pytest.mark.parametrize("few", [1, 100], ids=["all entries are looked at", "by subject"])
def test_whoever_follows_gets_each_of_its_entries_once_and_in_order(
    monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(tail, "FEW_SUBJECTS", few)
    chance = random.Random(18)
    tables = [f"t{number}" for number in range(6)]

    async def scenario() -> None:
        log = empty()
        followed = log.follow(frozenset([("public", "t1"), ("public", "t4"), 5]))
        assert followed.subjects is not None
        written: list[Entry] = []
        for partition in (*range(PARTITIONS), ALL_PARTITIONS):
            got: list[Entry] = []
            start = after = log.head
            for _ in range(60):
                head = log.head
                some = [
                    entry(
                        head + n,
                        chance.choice(tables),
                        chance.randrange(PARTITIONS),
                        consumer_id=chance.choice([None, None, None, 5, 6, NOBODY]),
                    )
                    for n in range(1, chance.randrange(2, 40))
                ]
                written += some
                log.appended(some, some[-1].position, is_growing=chance.random() < 0.5)
                while not followed.has_nothing_after(partition, after):
                    passed = await followed.wait(partition, after)
                    found = await log.read(partition, passed, chance.randrange(1, 9), followed)
                    got += [e for e in found if e.subject in followed.subjects]
                    after = found[-1].position if found else log.head
            wanted = [
                e
                for e in written
                if e.subject in followed.subjects
                and partition in (e.partition, ALL_PARTITIONS)
                and e.position > start
            ]
            assert got == wanted

    run(scenario())
