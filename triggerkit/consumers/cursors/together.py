"""Move a cursor together with what its messages become: in one transaction, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import psycopg
from psycopg.errors import DeadlockDetected, ForeignKeyViolation, NotNullViolation
from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursors.cursor import AttemptOutcome, Cursor, CursorMoved
from triggerkit.consumers.cursors.store import look_again, move_parameters
from triggerkit.consumers.parked.message import ParkedMessage
from triggerkit.consumers.parked.store import park
from triggerkit.state.turn import Around, Rows, Statement, in_one_turn_async

#: Moves the cursor and notes the delivery. Where the cursor is another by now, the delivery is of
#: no consumer, which Postgres refuses: what comes after this in the transaction is not done either.
_MOVE = """
WITH moved AS (
    UPDATE triggerkit.cursors SET position = %(position)s, batch_id = NULL, batch_last = NULL,
        attempt = 0, settled = '{}'
    WHERE consumer_id = %(consumer_id)s AND partition = %(partition)s
      AND xmin = %(version)s::xid
    RETURNING consumer_id, xmin::text AS version),
noted AS (
    INSERT INTO triggerkit.deliveries (consumer_id, partition, first_position, last_position,
        batch_id, attempt, messages, sent_at, answered_at, status, error)
    VALUES ((SELECT consumer_id FROM moved), %(partition)s, %(first)s, %(last)s, %(batch_id)s,
        %(attempt)s, %(messages)s, %(sent_at)s, clock_timestamp(), %(status)s, %(error)s))
SELECT version FROM moved
"""


async def move_together(
    pool: AsyncConnectionPool,
    consumer: Consumer,
    cursor: Cursor,
    outcome: AttemptOutcome,
    around: Around,
    parked: Sequence[ParkedMessage] = (),
) -> tuple[Cursor, list[Rows]]:
    """Move the cursor past a batch, note its delivery and what is parked of it, and do `around`.

    Returns the cursor as it is stored then, and the rows of the statements that came after its
    move.

    Raises:
        CursorMoved: the cursor is another by now; nothing of this was done.
        psycopg.Error: a statement of `around` failed; nothing of this was done.
    """
    async with pool.connection() as connection:
        try:
            version, rows = await _move(connection, cursor, outcome, around, parked)
        except NotNullViolation:
            if cursor.batch_id is not None:
                raise CursorMoved from None
            cursor = await look_again(connection, consumer, cursor)
            try:
                version, rows = await _move(connection, cursor, outcome, around, parked)
            except NotNullViolation:
                raise CursorMoved from None
    assert outcome.move_to is not None
    return replace(cursor, version=version).ended(outcome.move_to), rows


async def _move(
    connection: psycopg.AsyncConnection,
    cursor: Cursor,
    outcome: AttemptOutcome,
    around: Around,
    parked: Sequence[ParkedMessage],
) -> tuple[str, list[Rows]]:
    move: Statement = (_MOVE, move_parameters(cursor, outcome))
    try:
        if not parked:
            done = await in_one_turn_async(connection, [*around.before, move, *around.after])
        else:
            async with connection.transaction():
                done = [await _done(connection, one) for one in (*around.before, move)]
                await park(connection, cursor.consumer_id, parked)
                done += [await _done(connection, one) for one in around.after]
    except (ForeignKeyViolation, DeadlockDetected):
        # The consumer was deleted at this moment.
        raise CursorMoved from None
    [[version]], *rows = done[len(around.before) :]
    return str(version), rows


async def _done(connection: psycopg.AsyncConnection, statement: Statement) -> Rows:
    return await (await connection.execute(*statement)).fetchall()
