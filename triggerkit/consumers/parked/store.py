"""The store of parked messages, as delivery uses it: to park, to try again, to be done with.

Of a key's messages the first is `failing` (tried again when due) or `blocked`; those behind it are
`waiting`, and `dead` and `superseded` ones are out of the way. A change of which one is the first
holds the cursor of its partition.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import psycopg
from psycopg.errors import DeadlockDetected, ForeignKeyViolation
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.parked.heads import LOCK_CURSORS, in_the_way, promote
from triggerkit.consumers.parked.message import Head, ParkedMessage, Tried
from triggerkit.consumers.parked.origin import COLUMNS as ORIGIN_COLUMNS
from triggerkit.consumers.parked.origin import Origin
from triggerkit.consumers.parked.states import IN_THE_WAY
from triggerkit.consumers.parked.supersede import supersede
from triggerkit.log.entry import Entry
from triggerkit.state.turn import NOTHING, Around, Rows

_ANY = f"SELECT FROM triggerkit.parked WHERE consumer_id = %s AND state IN {IN_THE_WAY} LIMIT 1"

_ALL_KEYS = f"""
SELECT DISTINCT key FROM triggerkit.parked WHERE consumer_id = %s AND state IN {IN_THE_WAY}
"""  # noqa: S608 - of constants

#: What comes again by the log, since its consumer's places moved, is parked already.
_PARK = f"""
INSERT INTO triggerkit.parked (consumer_id, partition, position, key, body, reason, state,
    attempts, failures, status, due_at, {ORIGIN_COLUMNS})
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s),
    %s, %s, %s, %s)
ON CONFLICT (consumer_id, partition, position) DO UPDATE SET key = excluded.key,
    idempotency_key = excluded.idempotency_key, schema_name = excluded.schema_name,
    table_name = excluded.table_name, row_key = excluded.row_key,
    body = excluded.body, reason = excluded.reason, state = excluded.state,
    attempts = excluded.attempts, failures = excluded.failures, status = excluded.status,
    due_at = excluded.due_at, lease_id = NULL, parked_at = now()
WHERE parked.state NOT IN {IN_THE_WAY}
"""  # noqa: S608 - of constants

#: Heads of keys by the time they are due, and the seconds until then.
DUE = f"""
SELECT partition, position, key, attempts, failures, status, parked_at, idempotency_key,
       extract(epoch FROM due_at - clock_timestamp())::float8 AS due_in_s
FROM triggerkit.parked p
WHERE consumer_id = %s AND state = 'failing' AND NOT key = ANY (%s) AND NOT EXISTS (
    SELECT FROM triggerkit.parked e
    WHERE e.consumer_id = p.consumer_id AND hashtext(e.key) = hashtext(p.key) AND e.key = p.key
      AND e.position < p.position AND e.state IN {IN_THE_WAY})
ORDER BY due_at LIMIT %s
"""  # noqa: S608 - of constants

#: Counts the next attempt before it is sent.
_BEGIN = """
UPDATE triggerkit.parked SET attempts = attempts + 1, failures = %s
WHERE consumer_id = %s AND partition = %s AND position = %s AND state = 'failing'
  AND attempts = %s AND parked_at = %s
RETURNING convert_to(body, 'UTF8')
"""

_HURRY = """
UPDATE triggerkit.parked SET due_at = clock_timestamp()
WHERE consumer_id = %s AND state = 'failing' AND due_at > clock_timestamp()
"""

_LOCK_CURSOR = """
SELECT FROM triggerkit.cursors WHERE consumer_id = %s AND partition = %s FOR NO KEY UPDATE
"""

_THIS = """
WHERE consumer_id = %(consumer_id)s AND partition = %(partition)s AND position = %(position)s
  AND attempts = %(attempts)s AND parked_at = %(parked_at)s AND state = 'failing'
"""

_REMOVE = f"DELETE FROM triggerkit.parked {_THIS}"  # noqa: S608 - of constants

_FAILED = f"""
UPDATE triggerkit.parked SET state = %(state)s, reason = coalesce(%(reason)s, reason),
    status = coalesce(%(status)s, status), failures = %(failures)s,
    due_at = clock_timestamp() + make_interval(secs => %(due_in_s)s)
{_THIS}
"""  # noqa: S608 - of constants

_NOTE = """
INSERT INTO triggerkit.deliveries (consumer_id, partition, first_position, last_position,
    batch_id, attempt, messages, sent_at, answered_at, status, error)
SELECT id, %(partition)s, %(position)s, %(position)s, %(batch_id)s, %(attempts)s, 1, %(sent_at)s,
    clock_timestamp(), %(status)s, %(error)s
FROM triggerkit.consumers WHERE id = %(consumer_id)s
"""


class Recorded(NamedTuple):
    """A retry that was noted: whether its key still has a message in the way of later ones, and
    the rows of what was done after it."""

    has_more: bool
    rows: list[Rows]


async def park(
    connection: psycopg.AsyncConnection, consumer_id: int, messages: Sequence[ParkedMessage]
) -> None:
    """Park `messages`, in order; the caller holds the cursor of their partition."""
    taken = await in_the_way(connection, consumer_id, {message.key for message in messages})
    rows: list[list[object]] = []
    for message in messages:
        state = _state(message, is_behind=message.key in taken)
        if state != "dead":
            taken.add(message.key)
        rows.append(
            [
                consumer_id,
                message.partition,
                message.position,
                message.key,
                message.body.decode(),
                message.reason,
                state,
                # One attempt was made of what failed, and none of the others.
                message.failures,
                message.failures,
                message.status,
                message.due_in_s,
                *(message.origin or [None] * len(Origin._fields)),
            ]
        )
    async with connection.cursor() as cursor:
        await cursor.executemany(_PARK, rows)


def _state(message: ParkedMessage, *, is_behind: bool) -> str:
    if is_behind and message.state in (None, "failing"):
        return "waiting"
    return message.state or "failing"


class ParkedStore:
    """The parked messages of consumers that are pushed to."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool

    async def keys(self, consumer_id: int) -> set[str]:
        """Return the keys that have a parked message in the way: their later messages wait behind
        it."""
        async with self._pool.connection() as connection, connection.cursor() as cursor:
            # Row by row: the keys alone are kept, never a second copy of them all.
            return {key async for (key,) in cursor.stream(_ALL_KEYS, [consumer_id])}

    async def is_empty(self, consumer_id: int) -> bool:
        """Return whether no message of the consumer is in the way of others."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_ANY, [consumer_id])
            return await cursor.fetchone() is None

    async def due(self, consumer_id: int, limit: int, but: Collection[str]) -> list[Head]:
        """At most `limit` heads that are tried again, the most urgent first; of no key in `but`."""
        async with (
            self._pool.connection() as connection,
            connection.cursor(row_factory=class_row(Head)) as cursor,
        ):
            await cursor.execute(DUE, [consumer_id, list(but), limit])
            return await cursor.fetchall()

    async def begin(self, consumer_id: int, head: Head, failures: int) -> bytes | None:
        """Count the next attempt, durable before it is sent; None when the message is gone."""
        parameters = [failures, consumer_id, head.partition, head.position, head.attempts]
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_BEGIN, [*parameters, head.parked_at], binary=True)
            row = await cursor.fetchone()
            return None if row is None else row[0]

    async def record_retry(
        self, consumer_id: int, head: Head, tried: Tried, around: Around = NOTHING
    ) -> Recorded:
        """Note an outcome, and do `around` in the same transaction.

        A message that was discarded, or parked anew, in the meantime is left as it is; then what
        comes after in `around` is not done.
        """
        parameters = {
            "consumer_id": consumer_id,
            "partition": head.partition,
            "position": head.position,
            "attempts": head.attempts,
            "parked_at": head.parked_at,
            "state": tried.state,
            "reason": tried.reason,
            "status": tried.status,
            "failures": tried.failures,
            "due_in_s": tried.due_in_s,
            "batch_id": tried.batch_id,
            "sent_at": tried.sent_at,
            "error": tried.error,
        }
        try:
            async with self._pool.connection() as connection, connection.transaction():
                for statement in around.before:
                    await connection.execute(*statement)
                await connection.execute(_LOCK_CURSOR, [consumer_id, head.partition])
                query = _REMOVE if tried.state is None else _FAILED
                is_there = (await connection.execute(query, parameters)).rowcount == 1
                if tried.batch_id is not None and (is_there or not around.after):
                    await connection.execute(_NOTE, parameters)
                await promote(connection, consumer_id, [head.key])
                has_more = bool(await in_the_way(connection, consumer_id, [head.key]))
                after = around.after if is_there else ()
                rows = [
                    await (await connection.execute(*statement)).fetchall() for statement in after
                ]
                return Recorded(has_more, rows)
        except (ForeignKeyViolation, DeadlockDetected):
            # The consumer was deleted at this moment.
            return Recorded(has_more=True, rows=[])

    async def hurry(self, consumer_id: int) -> None:
        """Have all that are tried again be due now."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(LOCK_CURSORS, [consumer_id])
            await connection.execute(_HURRY, [consumer_id])

    async def supersede(
        self, consumer_id: int, truncate: Entry
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Supersede what is parked of the table of `truncate` and before it; returns the keys, and
        those of them that nothing is in the way of any more."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(LOCK_CURSORS, [consumer_id])
            keys = await supersede(connection, consumer_id, truncate, may_be_held=False)
            await promote(connection, consumer_id, keys)
            return keys, keys - await in_the_way(connection, consumer_id, keys)

    async def has(self, consumer_id: int, key: str) -> bool:
        """Return whether `key` has a message in the way of its later ones."""
        async with self._pool.connection() as connection:
            return bool(await in_the_way(connection, consumer_id, [key]))
