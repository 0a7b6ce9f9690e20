"""A log with consumers at places of it, and what retention leaves of it."""

from __future__ import annotations

import psycopg
from psycopg.types.json import Jsonb

from triggerkit.change import RowChange, Transaction
from triggerkit.consumers.retention import Policy, retain
from triggerkit.log.entry import PARTITIONS, Pending
from triggerkit.log.retention import PATIENCE
from triggerkit.log.writer import LogWriter
from triggerkit.lsn import Lsn
from triggerkit.state.connect import connect

#: Positions of one table partition here.
SIZE = 100

TRANSACTION = Transaction(Lsn(100), "2026-10-28T21:39:21.127470Z", 777)


def add_database(url: str, name: str = "d") -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "INSERT INTO triggerkit.databases (name, slot_name, publication_name) "
            "VALUES (%s, 's', 'p') RETURNING id",
            [name],
        ).fetchone()
    assert row is not None
    return int(row[0])


def add_consumer(
    url: str, database_id: int, name: str, position: int, *, table: str = "items"
) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "INSERT INTO triggerkit.consumers (name, database_id, kind, definition) "
            "VALUES (%s, %s, 'changes', %s) RETURNING id",
            [name, database_id, Jsonb({"kind": "changes", "tables": [f"public.{table}"]})],
        ).fetchone()
        assert row is not None
        connection.execute(
            "INSERT INTO triggerkit.cursors (consumer_id, partition, position) "
            "SELECT %s, p, %s FROM generate_series(0, %s) p",
            [row[0], position, PARTITIONS - 1],
        )
    return int(row[0])


async def fill(url: str, database_id: int, count: int) -> None:
    async with LogWriter.open(url, database_id) as writer:
        for number in range(count):
            change = RowChange("public", "items", "insert", (str(number),), {"id": number})
            writer.write(Pending(TRANSACTION, number, change, 777))
            if number % 50 == 0:
                await writer.flush()
        await writer.commit(writer.last_commit_lsn + 1)


async def retained(url: str, database_id: int, policy: Policy) -> tuple[int, int]:
    """Retain; the lowest position that is left, and what the database says of it."""
    async with await connect(url, "test") as connection:
        await connection.execute(PATIENCE)
        await retain(connection, database_id, policy)
    return left(url, database_id)


def left(url: str, database_id: int) -> tuple[int, int]:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT (SELECT min(position) FROM triggerkit.events WHERE database_id = %(d)s), "
            "retained_from FROM triggerkit.databases WHERE id = %(d)s",
            {"d": database_id},
        ).fetchone()
    assert found is not None
    return found[0], found[1]


def column(url: str, query: str, *parameters: object) -> list[object]:
    with psycopg.connect(url) as connection:
        return [value for (value,) in connection.execute(query, parameters).fetchall()]
