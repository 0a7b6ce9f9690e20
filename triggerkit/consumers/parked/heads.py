"""Which message of a key is its first: tried when it is due, the others wait behind it."""

from __future__ import annotations

from collections.abc import Collection

import psycopg

from triggerkit.consumers.parked.states import IN_THE_WAY

_KEYS_IN_THE_WAY = f"""
SELECT DISTINCT p.key FROM unnest(%(keys)s::text[]) k JOIN triggerkit.parked p
    ON p.consumer_id = %(consumer_id)s AND hashtext(p.key) = hashtext(k) AND p.key = k
WHERE p.state IN {IN_THE_WAY}
"""  # noqa: S608 - of constants

#: All of a consumer: nothing is parked or taken meanwhile.
LOCK_CURSORS = """
SELECT FROM triggerkit.cursors WHERE consumer_id = %s ORDER BY partition FOR NO KEY UPDATE
"""

#: Lets the first message of each key be tried, if it waits.
_PROMOTE = f"""
UPDATE triggerkit.parked p SET state = 'failing', due_at = clock_timestamp(), lease_id = NULL
FROM unnest(%(keys)s::text[]) k CROSS JOIN LATERAL (
    SELECT partition, position FROM triggerkit.parked
    WHERE consumer_id = %(consumer_id)s AND hashtext(key) = hashtext(k) AND key = k
      AND state IN {IN_THE_WAY}
    ORDER BY position LIMIT 1) h
WHERE p.consumer_id = %(consumer_id)s AND p.partition = h.partition AND p.position = h.position
  AND p.state = 'waiting'
"""  # noqa: S608 - of constants


async def promote(
    connection: psycopg.AsyncConnection, consumer_id: int, keys: Collection[str]
) -> None:
    """Let the first message of each of `keys` be tried; the caller holds their cursors."""
    await connection.execute(_PROMOTE, {"consumer_id": consumer_id, "keys": list(keys)})


async def in_the_way(
    connection: psycopg.AsyncConnection, consumer_id: int, keys: Collection[str]
) -> set[str]:
    """Return those of `keys` that have a message in the way of later ones."""
    parameters = {"consumer_id": consumer_id, "keys": list(keys)}
    cursor = await connection.execute(_KEYS_IN_THE_WAY, parameters)
    return {key for (key,) in await cursor.fetchall()}
