"""The log's size, and dropping what is old: whole table partitions, oldest first."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql

from triggerkit.log.entry import PARTITIONS
from triggerkit.state.reading import Reads, rows_of

logger = logging.getLogger(__name__)

#: What a connection that drops tables sets first. A DROP that waits for a reader of the log makes
#: the writer wait behind it: so it gives up soon, and is tried again later.
PATIENCE = "SET lock_timeout = '100ms'; SET statement_timeout = '30s'"

#: The table partitions of one database's log, by way of the catalog: their size was a constant of
#: the version that made them.
_PARTITIONS = """
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), pg_total_relation_size(c.oid)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass('triggerkit.events_' || %s)
"""

_BOUND = re.compile(r"FROM \('?(\d+)'?\) TO \('?(\d+)'?\)")

#: One look into the index of each of the log's partitions.
_LAST_CAPTURED = """
SELECT max(e.captured_at) FROM generate_series(0, %s) p CROSS JOIN LATERAL (
    SELECT captured_at FROM triggerkit.events
    WHERE database_id = %s AND partition = p AND position >= %s AND position < %s
    ORDER BY position DESC LIMIT 1) e
"""

_FIRST_CAPTURED = """
SELECT min(e.captured_at) FROM generate_series(0, %s) p CROSS JOIN LATERAL (
    SELECT captured_at FROM triggerkit.events
    WHERE database_id = %s AND partition = p AND position >= %s
    ORDER BY position LIMIT 1) e
"""


@dataclass(frozen=True, slots=True)
class TablePartition:
    """A table with the entries of one database from position `first` to before `end`."""

    name: str
    first: int
    end: int
    size_bytes: int


async def table_partitions(connection: Reads, database_id: int) -> list[TablePartition]:
    """Return the table partitions of a database's log, oldest first; their sizes include the
    indexes."""
    found = []
    for name, bound, size_bytes in await rows_of(connection, _PARTITIONS, [str(database_id)]):
        # A table that is dropped at this moment has neither a bound nor a size any more.
        match = _BOUND.search(bound or "")
        if match is not None and size_bytes is not None:
            found.append(TablePartition(name, int(match[1]), int(match[2]), size_bytes))
    return sorted(found, key=lambda partition: partition.first)


async def last_captured(
    connection: psycopg.AsyncConnection, database_id: int, partition: TablePartition
) -> datetime | None:
    """Return the time when the newest entry of `partition` came into the log; None when it holds
    none."""
    return await _time(
        connection, _LAST_CAPTURED, [PARTITIONS - 1, database_id, partition.first, partition.end]
    )


async def first_captured(
    connection: Reads, database_id: int, retained_from: int
) -> datetime | None:
    """Return the time when the oldest entry of the log came into it; None when it is empty."""
    return await _time(connection, _FIRST_CAPTURED, [PARTITIONS - 1, database_id, retained_from])


async def drop(connection: psycopg.AsyncConnection, partition: TablePartition) -> bool:
    """Drop the table, or leave it for later when somebody reads the log right now."""
    try:
        await connection.execute(
            sql.SQL("DROP TABLE IF EXISTS triggerkit.{}").format(sql.Identifier(partition.name))
        )
    except psycopg.errors.LockNotAvailable:
        logger.debug("%s is in use; dropping it later", partition.name)
        return False
    logger.info("dropped positions %d to %d from the log", partition.first, partition.end - 1)
    return True


async def _time(connection: Reads, query: str, parameters: list[int]) -> datetime | None:
    [row] = await rows_of(connection, query, parameters)
    at: datetime | None = row[0]
    return at
