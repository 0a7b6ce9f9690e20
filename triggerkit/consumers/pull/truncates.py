"""Truncates: the places of a pulled consumer wait for each other at them.

The truncate is in one partition, and has an echo in each. It is handed out once all that is before
it is done; what is behind an echo is handed out once the truncate is done.
"""

from __future__ import annotations

import psycopg

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.parked.supersede import is_any_left, supersede
from triggerkit.consumers.pull import parking
from triggerkit.log.entry import Entry

#: Locks the consumer's cursors as far as nobody else holds one, and counts them; and whether any
#: may have something before a position.
_LOCK = """
SELECT count(*) = (SELECT count(*) FROM triggerkit.cursors WHERE consumer_id = %(consumer_id)s),
    coalesce(bool_or(c.position < %(position)s - 1 AND EXISTS (
        SELECT FROM triggerkit.events e
        WHERE e.database_id = %(database_id)s AND e.partition = c.partition
          AND e.position > c.position AND e.position < %(position)s
        ORDER BY e.position LIMIT 1)) FILTER (WHERE c.partition <> %(own)s), false)
FROM (
    SELECT partition, position FROM triggerkit.cursors WHERE consumer_id = %(consumer_id)s
    FOR NO KEY UPDATE SKIP LOCKED) c
"""

_IS_DONE = """
SELECT position >= %s FROM triggerkit.cursors WHERE consumer_id = %s AND partition = %s
"""


async def is_done(connection: psycopg.AsyncConnection, consumer: Consumer, echo: Entry) -> bool:
    """Return whether the truncate of `echo` is done."""
    parameters = [echo.truncate_position, consumer.id, echo.home_partition]
    row = await (await connection.execute(_IS_DONE, parameters)).fetchone()
    return row is None or row[0]


async def may_be_handed_out(
    connection: psycopg.AsyncConnection, consumer: Consumer, truncate: Entry, own: int
) -> bool | None:
    """Return whether all before `truncate` is done, what is set aside of it superseded; None when
    somebody else is busy with it at this moment.

    The caller is in a transaction that holds the cursor `own`, behind which the truncate is next.
    """
    parameters = {
        "consumer_id": consumer.id,
        "database_id": consumer.database_id,
        "position": truncate.position,
        "own": own,
    }
    row = await (await connection.execute(_LOCK, parameters)).fetchone()
    assert row is not None
    are_all_locked, is_any_before = row
    if not are_all_locked:
        return None
    if is_any_before:
        return False
    keys = await supersede(connection, consumer.id, truncate, may_be_held=True)
    await parking.arrange(connection, consumer.id, keys)
    # One that a caller holds now is waited for: it may be at work on it.
    return not await is_any_left(connection, consumer.id, truncate)
