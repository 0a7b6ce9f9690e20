"""Retention: what everybody is past goes when it is old, and at the limit what is oldest goes."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg
import pytest

from tests.acceptance.project import eventually
from tests.integration.consumers.kept_log import (
    SIZE,
    TRANSACTION,
    add_consumer,
    add_database,
    column,
    fill,
    left,
    retained,
)
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from triggerkit.change import RowChange
from triggerkit.consumers import retention
from triggerkit.consumers.declare.rewind import rewind
from triggerkit.consumers.definition import changes
from triggerkit.consumers.retention import CursorProgress, Policy, outlook, retain, save_progress
from triggerkit.log import tables as tables_module
from triggerkit.log.entry import PARTITIONS, Pending
from triggerkit.log.retention import table_partitions
from triggerkit.log.writer import LogWriter
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.streaming import retaining

RETAINED = "SELECT retained_from FROM triggerkit.databases"

AT_ONCE = Policy(keep=timedelta(0), max_bytes=10**12)
NEVER = Policy(keep=timedelta(days=1), max_bytes=10**12)
FULL = Policy(keep=timedelta(days=1), max_bytes=1)


@pytest.fixture(autouse=True)
def small_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_module, "TABLE_PARTITION_SIZE", SIZE)


def test_what_everybody_is_past_and_is_old_is_dropped(database_url: str) -> None:
    async def scenario() -> None:
        database_id = add_database(database_url)
        await fill(database_url, database_id, 450)
        add_consumer(database_url, database_id, "fast", 450)
        add_consumer(database_url, database_id, "slow", 250)
        assert await retained(database_url, database_id, NEVER) == (1, 1)
        assert await retained(database_url, database_id, AT_ONCE) == (200, 200)

    asyncio.run(scenario())


@pytest.mark.parametrize("policy", [AT_ONCE, FULL])
def test_nothing_is_dropped_that_a_rewind_at_this_moment_is_going_to_deliver(
    database_url: str, policy: Policy
) -> None:
    async def scenario() -> None:
        database_id = add_database(database_url)
        await fill(database_url, database_id, 450)
        consumer_id = add_consumer(database_url, database_id, "rewound", 450)
        async with (
            await connect(database_url, "rewind") as rewinding,
            await connect(database_url, "retention") as connection,
            await connect(database_url, "watch") as watch,
        ):
            async with rewinding.transaction():
                await rewind(rewinding, consumer_id, "beginning")
                retaining = asyncio.create_task(retain(connection, database_id, policy))
                blocked = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                while not retaining.done():
                    if (await watch.execute(blocked)).rowcount:
                        break
                    await asyncio.sleep(0.01)
            await retaining
        assert left(database_url, database_id) == (1, 1)

    asyncio.run(scenario())


@pytest.mark.parametrize("state", ["paused", "disabled"])
def test_a_consumer_at_rest_is_not_past(database_url: str, state: str) -> None:
    async def scenario() -> None:
        database_id = add_database(database_url)
        await fill(database_url, database_id, 450)
        consumer_id = add_consumer(database_url, database_id, "resting", 150)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                "UPDATE triggerkit.consumers SET state = %s WHERE id = %s", [state, consumer_id]
            )
        assert await retained(database_url, database_id, AT_ONCE) == (100, 100)

    asyncio.run(scenario())


def test_who_wants_nothing_of_it_holds_nothing_back(database_url: str) -> None:
    async def scenario() -> None:
        database_id = add_database(database_url)
        await fill(database_url, database_id, 450)
        add_consumer(database_url, database_id, "elsewhere", 0, table="others")
        assert await retained(database_url, database_id, AT_ONCE) == (400, 400)

    asyncio.run(scenario())


def test_progress_that_was_made_in_memory_counts_but_not_against_a_rewind(
    database_url: str,
) -> None:
    async def scenario() -> None:
        database_id = add_database(database_url)
        await fill(database_url, database_id, 450)
        consumer_id = add_consumer(database_url, database_id, "filtered", 0)
        async with await connect(database_url, "test") as connection:
            stale = [CursorProgress(consumer_id, 7, p, 450) for p in range(PARTITIONS)]
            await save_progress(connection, stale)
            assert await retained(database_url, database_id, AT_ONCE) == (1, 1)
            await save_progress(connection, [CursorProgress(consumer_id, 0, 1, 450)])
            await save_progress(connection, [])
            await save_progress(connection, [p._replace(replay_epoch=0) for p in stale])
        assert await retained(database_url, database_id, AT_ONCE) == (400, 400)

    asyncio.run(scenario())


def test_a_full_log_drops_what_was_not_delivered_and_says_so(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        database_id = add_database(database_url)
        await fill(database_url, database_id, 450)
        add_consumer(database_url, database_id, "fast", 450)
        slow = add_consumer(database_url, database_id, "slow", 120)
        with caplog.at_level(logging.ERROR):
            assert await retained(database_url, database_id, FULL) == (400, 400)
        gap = (
            "SELECT g.cause FROM triggerkit.gaps g JOIN triggerkit.consumers c "
            "ON c.id = g.consumer_id WHERE c.name = %s"
        )
        assert column(database_url, gap, "fast") == []
        [reason] = column(database_url, gap, "slow")
        assert str(reason).startswith("positions 100 to 399 were dropped")
        assert "triggerkit backfill start slow" in caplog.text
        positions = "SELECT DISTINCT position FROM triggerkit.cursors WHERE consumer_id = %s"
        assert column(database_url, positions, slow) == [399]

    asyncio.run(scenario())


def test_only_as_much_is_dropped_as_the_limit_asks_for(database_url: str) -> None:
    async def scenario() -> None:
        database_id = add_database(database_url)
        await fill(database_url, database_id, 450)
        async with await connect(database_url, "test") as connection:
            sizes = [p.size_bytes for p in await table_partitions(connection, database_id)]
        policy = Policy(timedelta(days=1), sum(sizes) - 1)
        assert await retained(database_url, database_id, policy) == (100, 100)

    asyncio.run(scenario())


def test_who_is_going_to_lose_messages_is_named_before(database_url: str) -> None:
    async def scenario() -> None:
        database_id = add_database(database_url)
        await fill(database_url, database_id, 450)
        add_consumer(database_url, database_id, "fast", 450)
        add_consumer(database_url, database_id, "slow", 60)
        async with await connect(database_url, "test") as connection:
            sizes = [p.size_bytes for p in await table_partitions(connection, database_id)]
            total = sum(sizes)
            calm = await outlook(connection, database_id, Policy(timedelta(1), total * 2))
            assert (calm.losers, calm.at, calm.size_bytes) == ((), None, total)
            near = await outlook(connection, database_id, Policy(timedelta(1), total * 10 // 9))
        assert [(loser.name, loser.messages) for loser in near.losers] == [("slow", 39)]
        assert near.at is not None
        assert near.at > datetime.now(UTC)

    asyncio.run(scenario())


def test_databases_are_retained_apart(database_url: str) -> None:
    async def scenario() -> None:
        small, large = add_database(database_url, "small"), add_database(database_url, "large")
        await fill(database_url, small, 50)
        await fill(database_url, large, 450)
        assert await retained(database_url, large, FULL) == (400, 400)
        assert left(database_url, small) == (1, 1)

    asyncio.run(scenario())


def test_deliveries_go_with_the_log_and_parked_messages_stay(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "DELETE_ROWS", 3)

    async def scenario() -> None:
        database_id = add_database(database_url)
        await fill(database_url, database_id, 450)
        consumer_id = add_consumer(database_url, database_id, "fast", 450)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO triggerkit.deliveries (consumer_id, partition, first_position, "
                "last_position, batch_id, attempt, messages, sent_at) "
                "SELECT %s, 2, p, p, 'b', 1, 1, now() FROM generate_series(380, 420) p",
                [consumer_id],
            )
            connection.execute(
                "INSERT INTO triggerkit.parked (consumer_id, partition, position, key, body, "
                "reason) VALUES (%s, 2, 5, 'k', '{}', 'r')",
                [consumer_id],
            )
        await retained(database_url, database_id, AT_ONCE)
        found = column(database_url, "SELECT last_position FROM triggerkit.deliveries")
        assert found == [*range(400, 421)]
        assert column(database_url, "SELECT position FROM triggerkit.parked") == [5]

    asyncio.run(scenario())


def test_appends_go_on_while_somebody_reads_the_log_and_the_table_is_dropped_later(
    database_url: str,
) -> None:
    async def scenario() -> None:
        database_id = add_database(database_url)
        await fill(database_url, database_id, 250)
        async with await psycopg.AsyncConnection.connect(database_url) as reader:
            await reader.execute("SELECT count(*) FROM triggerkit.events")
            async with asyncio.timeout(10):
                await asyncio.gather(
                    retained(database_url, database_id, AT_ONCE),
                    # Over the borders of tables, which are made while the log is read.
                    fill(database_url, database_id, 1000),
                )
            assert left(database_url, database_id) == (1, 200)
        assert await retained(database_url, database_id, AT_ONCE) == (1200, 1200)

    asyncio.run(scenario())


def test_an_append_that_is_under_way_is_not_hindered(database_url: str) -> None:
    async def scenario() -> None:
        database_id = add_database(database_url)
        await fill(database_url, database_id, 250)
        async with LogWriter.open(database_url, database_id) as writer:
            for number in range(1000):
                change = RowChange("public", "items", "insert", (str(number),), {"id": number})
                writer.write(Pending(TRANSACTION, number, change, 777))
                if number % 50 == 0:
                    await writer.flush()
                if number == 500:
                    await retained(database_url, database_id, AT_ONCE)
            assert len(await writer.commit(1000)) == 1000
        assert await retained(database_url, database_id, AT_ONCE) == (1200, 1200)

    asyncio.run(scenario())


def test_a_stream_retains_though_a_filter_lets_nothing_pass(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retaining, "RETENTION_S", 0.1)
    brief = Settings.parse({**settings.environment(), "TRIGGERKIT_LOG_KEEP": "0.01s"})

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(brief, "CREATE TABLE items (id bigint PRIMARY KEY, name text)")
            await declare(brief, receiver, changes("items", batch_size=50), "all")
            nothing = changes("items", filters=[("name", "==", "nobody")])
            await declare(brief, receiver, nothing, "nothing")
            async with streaming(brief, receiver):
                for first in range(1, 351, 50):
                    await execute(
                        brief,
                        "INSERT INTO items SELECT n, 'x' FROM "
                        f"generate_series({first}, {first + 49}) n",
                    )
                await receiver.until(lambda: len(receiver.messages) >= 350)
                await asyncio.to_thread(
                    eventually,
                    lambda: column(brief.state_dsn, RETAINED) == [300],
                    10,
                    "the log begins at 300",
                )
            assert len(receiver.messages) == 350
        assert column(brief.state_dsn, "SELECT cause FROM triggerkit.gaps") == []

    asyncio.run(scenario())


def test_a_log_of_large_rows_keeps_within_its_limit(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables_module, "TABLE_PARTITION_SIZE", 500_000)
    limit = 20_000_000
    small = Settings.parse({**settings.environment(), "TRIGGERKIT_LOG_MAX_BYTES": str(limit)})

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(small, "CREATE TABLE items (id int PRIMARY KEY, name text)")
            await declare(small, receiver, changes("items", batch_size=5))
            async with streaming(small, receiver):
                for first in range(0, 60, 5):
                    # Values that cannot be compressed.
                    await execute(
                        small,
                        "INSERT INTO items SELECT i, (SELECT string_agg(md5(i::text || j), '') "
                        f"FROM generate_series(1, 32768) j) FROM generate_series({first + 1}, "
                        f"{first + 5}) i",
                    )
                    await receiver.until(partial(has_arrived, receiver, first + 5))
                await asyncio.to_thread(
                    eventually, lambda: log_bytes(small) < limit * 1.15, 20, "the limit"
                )
            assert {m["record"]["id"] for m in receiver.messages} == set(range(1, 61))

    asyncio.run(scenario())


def has_arrived(receiver: Receiver, count: int) -> bool:
    return len(receiver.messages) >= count


def log_bytes(settings: Settings) -> int:
    with psycopg.connect(settings.state_dsn) as connection:
        row = connection.execute(
            "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('triggerkit.events')"
        ).fetchone()
    assert row is not None
    return int(row[0])
