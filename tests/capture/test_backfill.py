"""Existing rows, read from every server: the markers go through its WAL as it can carry them."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from tests.capture.rig.source import Source
from tests.conftest import WEBHOOK_SECRET
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.definition import changes, rows
from triggerkit.replication import heartbeat, wal_marker
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.state.migrate import migrate


@pytest.fixture
def settings(source: Source, database_url: str, redis_url: str) -> Settings:
    """A project on the source, with its state elsewhere."""
    return Settings.parse(
        {
            "DATABASE_URL": source.url,
            "TRIGGERKIT_STATE_URL": database_url,
            "REDIS_URL": redis_url,
            "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
        }
    )


def test_existing_rows_are_read_and_changes_follow_them(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(
                settings,
                "CREATE TABLE items (id bigint PRIMARY KEY, v int)",
                "INSERT INTO items SELECT i, 0 FROM generate_series(1, 700) i",
            )
            await declare(settings, receiver, rows("items", batch_size=100))
            async with streaming(settings, receiver):
                await execute(settings, "UPDATE items SET v = 1 WHERE id % 7 = 0")
                await receiver.until(
                    lambda: last_values(receiver) == {i: int(i % 7 == 0) for i in range(1, 701)}
                )
            actions = {m["action"] for m in receiver.messages}
            assert "read" in actions

    asyncio.run(scenario())


def last_values(receiver: Receiver) -> dict[int, int]:
    return {m["record"]["id"]: m["record"]["v"] for m in receiver.messages}


def test_a_mark_is_not_kept_back_by_an_absent_standby(source: Source) -> None:
    source.execute("CREATE TABLE items (id int PRIMARY KEY)")
    source.follow("items")
    source.execute("ALTER SYSTEM SET synchronous_standby_names = 'absent'")
    source.execute("SELECT pg_reload_conf()")
    try:
        assert source.changes() == []
    finally:
        source.execute("ALTER SYSTEM RESET synchronous_standby_names")
        source.execute("SELECT pg_reload_conf()")


def test_marks_of_several_senders_all_come_back(source: Source) -> None:
    source.execute("CREATE TABLE items (id int PRIMARY KEY)")
    source.follow("items")

    async def send(sender: int) -> None:
        async with await connect(source.url, "test") as connection:
            for number in range(20):
                await wal_marker.emit(connection, f"triggerkit.{sender}", str(number))

    async def scenario() -> None:
        await asyncio.gather(*map(send, range(3)))

    asyncio.run(scenario())
    markers = [(m.prefix, m.content) for part in source.parts() for m in part.messages]
    assert sorted(markers) == sorted(
        (f"triggerkit.{sender}", str(number).encode())
        for sender in range(3)
        for number in range(20)
    )


def test_the_table_of_marks_exists_only_where_messages_are_not_streamed(source: Source) -> None:
    source.execute("CREATE TABLE items (id int PRIMARY KEY)")
    source.follow("items")
    with psycopg.connect(source.url) as connection:
        row = connection.execute("SELECT to_regclass('triggerkit.signal') IS NOT NULL").fetchone()
    assert row == (source.version < 14,)


def test_a_heartbeat_that_came_back_is_noted_in_the_state(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.05)

    async def noted() -> object:
        async with await connect(settings.state_dsn, "test") as state:
            cursor = await state.execute("SELECT heartbeat_at FROM triggerkit.databases")
            row = await cursor.fetchone()
        return row and row[0]

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, "CREATE TABLE items (id bigint PRIMARY KEY)")
            await declare(settings, receiver, rows("items"))
            async with streaming(settings, receiver), asyncio.timeout(20):
                while (first := await noted()) is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                while await noted() == first:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    asyncio.run(scenario())


def test_annotations_are_in_the_metadata_of_their_transactions_messages(
    settings: Settings, source: Source
) -> None:
    if source.version < 14:
        pytest.skip("messages are streamed from Postgres 14 on")

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, "CREATE TABLE items (id bigint PRIMARY KEY)")
            await declare(settings, receiver, changes("items"))
            async with streaming(settings, receiver):
                await execute(
                    settings,
                    "SELECT pg_logical_emit_message(true, "
                    "'triggerkit:transaction_annotations:set', '{\"by\": [\"ann\\t\"]}');"
                    "INSERT INTO items VALUES (1)",
                    "INSERT INTO items VALUES (2)",
                )
                await receiver.until(lambda: len(receiver.messages) == 2)
            notes = {
                m["record"]["id"]: m["metadata"]["transaction_annotations"]
                for m in receiver.messages
            }
            assert notes == {1: {"by": ["ann\t"]}, 2: None}

    asyncio.run(scenario())


def test_the_state_may_live_in_the_source_itself(source: Source, redis_url: str) -> None:
    settings = Settings.parse(
        {
            "DATABASE_URL": source.url,
            "REDIS_URL": redis_url,
            "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
        }
    )

    async def scenario() -> None:
        async with await connect(source.url, "test") as state:
            await migrate(state)
        async with Receiver.start() as receiver:
            await execute(
                settings,
                "CREATE TABLE items (id bigint PRIMARY KEY, v int)",
                "INSERT INTO items VALUES (1, 0), (2, 0)",
                "CREATE PUBLICATION triggerkit FOR ALL TABLES",
            )
            await declare(settings, receiver, rows("items"))
            async with streaming(settings, receiver):
                await execute(settings, "UPDATE items SET v = 1 WHERE id = 2")
                await receiver.until(lambda: last_values(receiver) == {1: 0, 2: 1})

    asyncio.run(scenario())
    tables = "SELECT string_agg(DISTINCT table_name, ' ') FROM triggerkit.events"
    assert source.value(tables) == "items"
