"""Rows that the stream brings without a large value while their table is being read.

An update leaves out a large value that it does not change, and the log does not have it before the
row was read. If the update also takes the row out of what is still to be read (by a newer value in
the sort column, by another key, or since the row is dropped from its chunk), nothing else brings
the value. So such rows are read again at the end, each after its last change.
"""

from __future__ import annotations

from typing import NamedTuple

import orjson
from psycopg_pool import AsyncConnectionPool

from triggerkit.change import Key
from triggerkit.consumers.backfill.opened import OpenBackfill

#: Rows that are read again at once.
MOST_KEYS = 200

_HEAD = "SELECT next_position FROM triggerkit.databases WHERE id = %s"

#: Changes that lack a value, by the index events_left_out, of rows that have no later version of
#: which one could be known: that would be in the index events_large (see `log/unchanged.py`). What
#: comes after `end` is not looked at: of a row that changes all the time, no change would be last.
_FIND = """
SELECT e.position, e.key, e.xid FROM triggerkit.events e
CROSS JOIN LATERAL (
    SELECT l.position FROM triggerkit.events l
    WHERE l.database_id = e.database_id AND l.partition = e.partition
      AND hashtext(l.key) >= hashtext(e.key) AND hashtext(l.key) <= hashtext(e.key)
      AND (octet_length(l.record) > 2000 OR l.unchanged IS NOT NULL OR l.fault IS NOT NULL)
      AND l.position >= e.position AND l.position < %(end)s AND l.key = e.key
      AND l.schema_name = e.schema_name AND l.table_name = e.table_name
      AND (l.consumer_id IS NULL OR l.consumer_id = %(consumer)s)
    ORDER BY hashtext(l.key) DESC, l.position DESC LIMIT 1) AS last
WHERE e.database_id = %(database)s AND e.position >= %(first)s AND e.position < %(end)s
  AND cardinality(e.unchanged) > 0 AND e.consumer_id IS NULL
  AND e.schema_name = %(schema)s AND e.table_name = %(table)s AND last.position = e.position
ORDER BY e.position LIMIT %(limit)s
"""


class LeftOut(NamedTuple):
    """A change that lacks a value of its row."""

    position: int
    key: Key
    xid: int


async def head_of(pool: AsyncConnectionPool, backfill: OpenBackfill) -> int:
    """Return the position that the log's next entry will have."""
    async with pool.connection() as connection:
        cursor = await connection.execute(_HEAD, [backfill.database_id])
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def find_left_out(
    pool: AsyncConnectionPool, backfill: OpenBackfill, first: int, end: int, limit: int
) -> list[LeftOut]:
    """Return the first changes of the backfill's table between the positions `first` and `end`
    after which a value of their row is not known to its consumer."""
    wanted = {
        "database": backfill.database_id,
        "consumer": backfill.consumer_id,
        "schema": backfill.schema_name,
        "table": backfill.table_name,
        "first": first,
        "end": end,
        "limit": limit,
    }
    async with pool.connection() as connection:
        cursor = await connection.execute(_FIND, wanted)
        return [
            LeftOut(position, tuple(orjson.loads(key)), xid)
            for position, key, xid in await cursor.fetchall()
        ]
