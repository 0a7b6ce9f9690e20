"""A log that lacks what the slot has confirmed is a gap; one that is only idle is none."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg import sql

from tests.integration.consumers.test_gap import gap, until_closed
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.backfill.store import BackfillStore
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

TABLE = "CREATE TABLE items (id bigint PRIMARY KEY, name text)"

#: What a backup of the state has, and what is written back from it.
_TABLES = ("databases", "cursors")


class Backup:
    """The log as it is now, to be brought back."""

    def __init__(self, settings: Settings) -> None:
        self._dsn = settings.state_dsn
        with psycopg.connect(self._dsn, autocommit=True) as state:
            state.execute("CREATE SCHEMA backup")
            for table in (*_TABLES, "events"):
                copy = sql.SQL("CREATE TABLE backup.{0} AS SELECT * FROM triggerkit.{0}")
                state.execute(copy.format(sql.Identifier(table)))

    def restore(self) -> None:
        """Have the log end where it ended then."""
        with psycopg.connect(self._dsn, autocommit=True) as state, state.transaction():
            state.execute(
                "UPDATE triggerkit.databases d SET next_position = b.next_position, "
                "last_commit_lsn = b.last_commit_lsn, confirmed_lsn = b.confirmed_lsn "
                "FROM backup.databases b WHERE b.id = d.id"
            )
            state.execute(
                "UPDATE triggerkit.cursors c SET position = b.position FROM backup.cursors b "
                "WHERE (b.consumer_id, b.partition) = (c.consumer_id, c.partition)"
            )
            state.execute(
                "DELETE FROM triggerkit.events WHERE position NOT IN "
                "(SELECT position FROM backup.events)"
            )


def test_a_restored_log_is_a_gap_that_a_backfill_closes(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:

            async def delivered(*ids: int) -> None:
                await receiver.until(
                    lambda: {*ids} <= {m["record"]["id"] for m in receiver.messages}
                )

            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", batch_size=10))
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'kept')")
                await delivered(1)
            backup = Backup(settings)
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (2, 'lost')")
                await delivered(2)
            assert await gap(settings) is None
            backup.restore()
            receiver.requests.clear()
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (3, 'after')")
                await delivered(3)
                assert "the slot has confirmed" in (await gap(settings) or "")
                assert 2 not in {m["record"]["id"] for m in receiver.messages}
                async with (
                    await connect(settings.state_dsn, "test") as state,
                    await connect(settings.source_dsn, "test") as source,
                ):
                    await BackfillStore(state, "test").start(source, "test")
                await delivered(2)
                await until_closed(settings)
            # Told once: what is known is not found again.
            async with streaming(settings, receiver):
                assert await gap(settings) is None

    asyncio.run(scenario())


def test_what_others_write_is_confirmed_and_no_gap(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.replication.connection.STATUS_S", 0.05)

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE, "CREATE TABLE noise (t text)")
            await declare(settings, receiver, changes("items", batch_size=10))
            for _ in range(3):
                async with streaming(settings, receiver):
                    await execute(settings, "INSERT INTO noise VALUES ('x')")
                    await until_confirmed(settings, await wal_end(settings))
                assert await gap(settings) is None

    asyncio.run(scenario())


async def wal_end(settings: Settings) -> int:
    return await number(settings, "pg_current_wal_insert_lsn() - '0/0'")


async def until_confirmed(settings: Settings, lsn: int) -> None:
    """Wait until the slot was told of so much; the server announces it to nobody."""
    confirmed = "(SELECT max(confirmed_flush_lsn) - '0/0' FROM pg_replication_slots)"
    async with asyncio.timeout(20):
        while await number(settings, confirmed) < lsn:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def number(settings: Settings, expression: str) -> int:
    async with await connect(settings.source_dsn, "test") as source:
        row = await (await source.execute(f"SELECT {expression}".encode())).fetchone()
    assert row is not None
    return int(row[0])
