"""Parked messages whose table is truncated: they are not delivered any more."""

from __future__ import annotations

import psycopg

from triggerkit.log.entry import Entry

#: One that a caller holds at this moment is left as it is. What an earlier version parked
#: has no table of its own.
_SUPERSEDE = """
UPDATE triggerkit.parked SET state = 'superseded', lease_id = NULL,
    reason = 'its table was truncated after it: ' || reason
WHERE consumer_id = %(consumer_id)s AND position < %(position)s AND state <> 'superseded'
  AND (schema_name = %(schema)s AND table_name = %(table)s
       OR schema_name IS NULL AND starts_with(key, %(keys)s))
  AND (NOT %(may_be_held)s OR lease_id IS NULL OR due_at <= clock_timestamp())
RETURNING key
"""

_IS_LEFT = """
SELECT EXISTS (SELECT FROM triggerkit.parked
    WHERE consumer_id = %(consumer_id)s AND position < %(position)s AND state <> 'superseded'
      AND schema_name = %(schema)s AND table_name = %(table)s)
"""


async def supersede(
    connection: psycopg.AsyncConnection, consumer_id: int, truncate: Entry, *, may_be_held: bool
) -> frozenset[str]:
    """Supersede what is parked of the table of `truncate` and before it; returns the keys.

    What a caller holds is left, if it `may_be_held`: see `is_any_left`. The caller of this holds
    the consumer's cursors.
    """
    parameters = _parameters(consumer_id, truncate)
    cursor = await connection.execute(_SUPERSEDE, {**parameters, "may_be_held": may_be_held})
    return frozenset([key for (key,) in await cursor.fetchall()])


async def is_any_left(
    connection: psycopg.AsyncConnection, consumer_id: int, truncate: Entry
) -> bool:
    """Return whether a message of the table, before `truncate`, can still be delivered."""
    cursor = await connection.execute(_IS_LEFT, _parameters(consumer_id, truncate))
    row = await cursor.fetchone()
    return row is not None and row[0]


def _parameters(consumer_id: int, truncate: Entry) -> dict[str, object]:
    return {
        "consumer_id": consumer_id,
        "position": truncate.position,
        "schema": truncate.schema,
        "table": truncate.table,
        "keys": f"{truncate.schema}.{truncate.table}:",
    }
