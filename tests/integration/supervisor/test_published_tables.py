"""What comes through a publication of partitions, or of all tables, ours among them."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from tests.acceptance.project import eventually
from tests.integration.pipeline import execute, pipeline
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings


def test_changes_of_partitions_arrive_as_those_of_their_table(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(
            settings,
            changes("orders"),
            "CREATE TABLE orders (id bigint PRIMARY KEY) PARTITION BY RANGE (id)",
            "CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (10)",
        ) as receiver:
            await execute(settings, "INSERT INTO orders VALUES (1)")
            await receiver.until(lambda: len(receiver.messages) == 1)
        assert receiver.messages[0]["metadata"]["table_name"] == "orders"

    asyncio.run(scenario())


def test_with_all_tables_published_the_log_has_each_change_once_and_nothing_else(
    settings: Settings,
) -> None:
    """The state is in the same database: what we write there must not come back to us."""
    count = 50

    def seen() -> tuple[int, int]:
        """Entries in the log, and the newest transaction's id."""
        with psycopg.connect(settings.source_dsn, autocommit=True) as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM triggerkit.events), "
                "txid_snapshot_xmax(txid_current_snapshot())"
            ).fetchone()
        assert row is not None
        return row

    def settled() -> bool:
        with psycopg.connect(settings.source_dsn) as connection:
            open_batches = connection.execute(
                "SELECT FROM triggerkit.cursors WHERE batch_id IS NOT NULL"
            )
            return open_batches.rowcount == 0

    async def scenario() -> None:
        async with pipeline(
            settings,
            changes("items"),
            "CREATE TABLE items (id bigint PRIMARY KEY)",
            "CREATE PUBLICATION triggerkit FOR ALL TABLES",
        ) as receiver:
            inserts = [f"INSERT INTO items VALUES ({i})" for i in range(count)]
            await execute(settings, *inserts)
            await receiver.until(lambda: len(receiver.messages) == count)
            await asyncio.to_thread(eventually, settled, 10, "all batches are done")
            entries, newest = seen()
            assert entries == count
            with pytest.raises(TimeoutError):
                await receiver.until(lambda: len(receiver.messages) > count, timeout_s=1)
            entries, newest_later = seen()
        assert entries == count
        # Not one write has caused another: the server's own housekeeping takes a few.
        assert newest_later - newest < count

    asyncio.run(scenario())
