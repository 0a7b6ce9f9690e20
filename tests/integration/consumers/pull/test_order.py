"""Order per key over partitions, groups and several callers."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict

import psycopg

from tests.integration.consumers.pull.pulling import Pulling, ids, pulling, same_partition
from triggerkit.consumers.declare.rewind import rewind
from triggerkit.consumers.definition import changes
from triggerkit.log.entry import PARTITIONS


def test_a_group_s_messages_are_in_order_over_all_partitions(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url, changes("items", group_by=["owner"])) as pull:
            await pull.log(range(1, 41), owner="a")
            await pull.log([41], owner="b")
            received = await pull.receive(30)
            assert [m.version for m in received] == list(range(30))
            assert await pull.receive() == []
            await pull.nack(received[:1])
            await pull.ack(received[1:])
            assert [m.id for m in await pull.receive(1)] == [1]
            rest = await pull.receive(100)
            assert ids(rest) == [41]

    asyncio.run(scenario())


async def consume(pull: Pulling, held: set[int], seen: list[tuple[int, int]], seed: int) -> None:
    """Receive, hand some back and acknowledge the others, until everything was seen."""
    dice = random.Random(seed)
    while len(seen) < pull.logged:
        received = await pull.receive(dice.choice([1, 20, 300]))
        keys = {message.id for message in received}
        assert not keys & held, "a key is held by one caller at a time"
        held |= keys
        await asyncio.sleep(0.001)
        # Who fails at a message does not go on with those behind it.
        failed = {message.id for message in received if dice.random() < 0.02}
        kept = [message for message in received if message.id not in failed]
        seen += [(message.id, message.version) for message in kept]
        held -= keys
        if kept:
            assert await pull.ack(kept) == []
        if failed:
            assert await pull.nack([m for m in received if m.id in failed], 0.005) == []


def test_eight_callers_get_every_message_and_each_key_in_order(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            dice = random.Random(8)
            await pull.log([dice.randrange(200) for _ in range(5000)])
            held: set[int] = set()
            seen: list[tuple[int, int]] = []
            async with asyncio.timeout(90), asyncio.TaskGroup() as group:
                for seed in range(PARTITIONS):
                    group.create_task(consume(pull, held, seen, seed))
            assert len(seen) == len(set(seen)) == 5000, "each is acknowledged once"
            by_key: dict[int, list[int]] = defaultdict(list)
            for key, version in seen:
                by_key[key].append(version)
            assert all(versions == sorted(versions) for versions in by_key.values())
            assert await pull.parked() == []

    asyncio.run(scenario())


def test_large_messages_of_all_partitions_keep_the_order_of_a_whole(database_url: str) -> None:
    async def scenario() -> None:
        # One partition is over the limit by what nobody wants, before others have a message.
        definition = changes("items", group_by=["owner"], filters=[("v", ">=", 9)])
        async with pulling(database_url, definition) as pull:
            rows = [*same_partition(12), *range(100, 116)]
            await pull.log(rows, owner="a", body="x" * 1024 * 1024)
            await pull.log([200], owner="a", body="small")
            seen: list[int] = []
            while received := await pull.receive(1000):
                seen += ids(received)
                assert await pull.ack(received) == []
            assert seen == [*rows[9:], 200]

    asyncio.run(scenario())


def test_a_replay_and_a_caller_who_both_change_several_cursors_wait_for_each_other_in_order(
    database_url: str,
) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await pull.log(range(1, 40))
            # Where its row lies is not the order of partitions any more.
            await pull.execute("UPDATE triggerkit.cursors SET position = 0 WHERE partition = 0")
            lock = "SELECT FROM triggerkit.cursors WHERE partition = %s FOR NO KEY UPDATE"
            async with (
                await psycopg.AsyncConnection.connect(pull.url) as caller,
                await psycopg.AsyncConnection.connect(pull.url, autocommit=True) as state,
            ):
                # As the planner reads a table of many consumers.
                await state.execute("SET enable_indexscan = off")
                await state.execute("SET enable_bitmapscan = off")
                await caller.execute(lock, [0])
                pid = state.info.backend_pid
                replaying = asyncio.create_task(rewind(state, 1, "beginning"))
                waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = "
                async with asyncio.timeout(10):
                    while not await pull.execute(f"{waits}{pid}"):
                        assert not replaying.done(), replaying.result()
                        await asyncio.sleep(0.01)
                await caller.execute(lock, [7])
                await caller.commit()
                assert (await replaying).first_position == 1

    asyncio.run(asyncio.wait_for(scenario(), 30))
