"""Loading consumers and moving their cursors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

import psycopg
from psycopg.errors import DeadlockDetected, ForeignKeyViolation
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursors.cursor import AttemptOutcome, Cursor, CursorMoved
from triggerkit.consumers.cursors.gathered import GatheredCursors
from triggerkit.consumers.cursors.known import read_consumers
from triggerkit.consumers.parked.message import ParkedMessage
from triggerkit.consumers.parked.store import ParkedStore, park
from triggerkit.state.channels import notify_consumers
from triggerkit.state.reading import Together

#: `xmin` is the transaction that wrote the row last: any other writer, a rewind above all, is
#: noticed by it.
_LOAD = """
SELECT k.consumer_id, k.partition, k.position, k.batch_id, k.batch_last, k.attempt, k.settled,
       k.xmin::text AS version, k.position AS stored_position
FROM triggerkit.cursors k
JOIN triggerkit.consumers c ON c.id = k.consumer_id AND c.replay_epoch = %s
WHERE k.consumer_id = %s ORDER BY k.partition
"""

_RELOAD = """
SELECT k.xmin::text, k.position, k.batch_id, k.owner
FROM triggerkit.cursors k
JOIN triggerkit.consumers c ON c.id = k.consumer_id AND c.replay_epoch = %s
WHERE k.consumer_id = %s AND k.partition = %s
"""

#: Before several cursors are changed: all lock them in this order, so that none waits for another
#: that waits for it.
LOCK_CURSORS = """
SELECT FROM triggerkit.cursors WHERE consumer_id = %s ORDER BY partition FOR NO KEY UPDATE
"""

#: Remembers the next attempt before it is sent.
_BEGIN = """
UPDATE triggerkit.cursors
SET position = %s, batch_id = %s, batch_last = %s, attempt = %s, settled = %s
WHERE consumer_id = %s AND partition = %s AND xmin = %s::xid
RETURNING xmin::text
"""

_REST = """
UPDATE triggerkit.cursors
SET position = %s, batch_id = NULL, batch_last = NULL, attempt = 0, settled = '{}'
WHERE consumer_id = %s AND partition = %s AND xmin = %s::xid
RETURNING xmin::text
"""

#: Notes an attempt's outcome and moves the cursor: the one statement a delivered batch costs.
_RECORD_ATTEMPT = """
WITH moved AS (
    UPDATE triggerkit.cursors SET position = %(position)s,
        batch_id = CASE WHEN %(done)s THEN NULL ELSE batch_id END,
        batch_last = CASE WHEN %(done)s THEN NULL ELSE batch_last END,
        attempt = CASE WHEN %(done)s THEN 0 ELSE attempt END,
        settled = CASE WHEN %(done)s THEN '{}' ELSE settled END
    WHERE consumer_id = %(consumer_id)s AND partition = %(partition)s
      AND xmin = %(version)s::xid
    RETURNING xmin::text AS version),
noted AS (
    INSERT INTO triggerkit.deliveries (consumer_id, partition, first_position, last_position,
        batch_id, attempt, messages, sent_at, answered_at, status, error)
    SELECT %(consumer_id)s, %(partition)s, %(first)s, %(last)s, %(batch_id)s, %(attempt)s,
        %(messages)s, %(sent_at)s, clock_timestamp(), %(status)s, %(error)s
    FROM moved)
SELECT version FROM moved
"""

#: Returns the stored positions in the partitions that other processes have.
Elsewhere = Callable[[], Awaitable[Mapping[int, int]]]

#: How the error of a consumer begins whose function cannot be loaded.
UNLOADABLE = "cannot run: "


class CursorStore:
    """The consumers of one database and their cursors."""

    def __init__(self, pool: AsyncConnectionPool, database_id: int) -> None:
        self._pool = pool
        self._database_id = database_id
        self._gathered = GatheredCursors(pool)
        self.parked = ParkedStore(pool)

    async def consumers(self, name: str | None = None) -> list[Consumer]:
        """Return all consumers of the database, or the one that is named.

        Raises:
            UnknownConsumer: none is named so.
        """
        async with self._pool.connection() as connection, Together(connection) as reads:
            return await read_consumers(reads, self._database_id, name)

    async def load(self, consumer: Consumer) -> list[Cursor]:
        """Return the consumer's cursors: one per partition, or one for all.

        There are none when `consumer` is gone, or was rewound since it was read.
        """
        async with (
            self._pool.connection() as connection,
            connection.cursor(row_factory=class_row(Cursor)) as cursor,
        ):
            await cursor.execute(_LOAD, [consumer.replay_epoch, consumer.id])
            return await cursor.fetchall()

    def elsewhere(self, consumer_id: int) -> Elsewhere | None:  # noqa: ARG002
        """Return what tells how far a consumer is in partitions that other processes have; None
        where one process has all."""
        return None

    async def begin(
        self,
        consumer: Consumer,
        cursor: Cursor,
        *,
        batch_id: str,
        batch_last: int,
        settled: list[int],
    ) -> Cursor:
        """Remember the attempt that is sent next, and return the cursor with it.

        Durable before it returns.

        Raises:
            CursorMoved: the cursor is another by now.
        """
        sending = replace(
            cursor,
            batch_id=batch_id,
            batch_last=batch_last,
            settled=settled,
            attempt=cursor.attempt + 1,
        )
        version = await self._gathered.begin(sending)
        if version is not None:
            return replace(sending, version=version, stored_position=sending.position)
        async with self._pool.connection() as connection:
            version = await _begin(connection, sending)
            if version is None:
                sending = await look_again(connection, consumer, sending)
                version = await _begin(connection, sending)
        if version is None:
            raise CursorMoved
        return replace(sending, version=version, stored_position=sending.position)

    async def rest(self, consumer: Consumer, cursor: Cursor) -> Cursor:
        """Store where the cursor is without a batch under way, of which nothing is done.

        Raises:
            CursorMoved: the cursor is another by now.
        """
        async with self._pool.connection() as connection:
            version = await _rest(connection, cursor)
            if version is None and cursor.batch_id is None:
                version = await _rest(connection, await look_again(connection, consumer, cursor))
        if version is None:
            raise CursorMoved
        return replace(cursor.ended(cursor.position), version=version)

    async def record_attempt(
        self,
        consumer: Consumer,
        cursor: Cursor,
        outcome: AttemptOutcome,
        parked: Sequence[ParkedMessage] = (),
    ) -> Cursor:
        """Note an attempt's outcome, what is parked, and the cursor's move, all at once.

        Returns the cursor as it is stored then.

        Raises:
            CursorMoved: the cursor is another by now; nothing of this was done.
        """
        if not parked:
            version = await self._gathered.record(cursor, outcome)
            if version is not None:
                return _recorded(cursor, outcome, version)
        async with self._pool.connection() as connection:
            if cursor.batch_id is None:
                cursor = await look_again(connection, consumer, cursor)
            parameters = move_parameters(cursor, outcome)
            try:
                if not parked:
                    version = await _move(connection, parameters)
                else:
                    async with connection.transaction():
                        version = await _move(connection, parameters)
                        await park(connection, cursor.consumer_id, parked)
            except (ForeignKeyViolation, DeadlockDetected):
                # The consumer was deleted at this moment.
                raise CursorMoved from None
        return _recorded(cursor, outcome, version)

    async def disable(self, consumer_id: int) -> None:
        """Note that the consumer's endpoint is gone: nothing more is sent to it."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(
                "UPDATE triggerkit.consumers SET state = 'disabled' WHERE id = %s", [consumer_id]
            )
            await connection.execute(
                "UPDATE triggerkit.endpoints SET disabled_at = now() WHERE id = "
                "(SELECT endpoint_id FROM triggerkit.consumers WHERE id = %s)",
                [consumer_id],
            )
            # The lanes of the other partitions stop too.
            await notify_consumers(connection)

    async def save_error(self, consumer_id: int, error: str | None) -> None:
        """Show the last delivery error with the consumer, or clear it."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE triggerkit.consumers SET last_error = %s "
                "WHERE id = %s AND last_error IS DISTINCT FROM %s",
                [error, consumer_id, error],
            )

    async def clear_unloadable(self, consumer_id: int) -> None:
        """Note that the consumer's functions can be loaded: an error that says otherwise is
        over."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE triggerkit.consumers SET last_error = NULL "
                "WHERE id = %s AND starts_with(last_error, %s)",
                [consumer_id, UNLOADABLE],
            )


def _recorded(cursor: Cursor, outcome: AttemptOutcome, version: str) -> Cursor:
    cursor = replace(cursor, version=version)
    if outcome.move_to is not None:
        return cursor.ended(outcome.move_to)
    return replace(cursor, stored_position=cursor.position)


async def _begin(connection: psycopg.AsyncConnection, cursor: Cursor) -> str | None:
    """Store the cursor; None when its row is of another version."""
    values = [cursor.position, cursor.batch_id, cursor.batch_last, cursor.attempt]
    where = [cursor.settled, cursor.consumer_id, cursor.partition, cursor.version]
    answer = await connection.execute(_BEGIN, [*values, *where])
    row = await answer.fetchone()
    return None if row is None else str(row[0])


async def _rest(connection: psycopg.AsyncConnection, cursor: Cursor) -> str | None:
    where = [cursor.position, cursor.consumer_id, cursor.partition, cursor.version]
    answer = await connection.execute(_REST, where)
    row = await answer.fetchone()
    return None if row is None else str(row[0])


def move_parameters(cursor: Cursor, outcome: AttemptOutcome) -> dict[str, object]:
    """Return the parameters of the statement that notes `outcome` and moves `cursor`."""
    return {
        "consumer_id": cursor.consumer_id,
        "partition": cursor.partition,
        "version": cursor.version,
        "first": outcome.first,
        "last": outcome.last,
        "batch_id": outcome.batch_id,
        "attempt": outcome.attempt,
        "messages": outcome.messages,
        "sent_at": outcome.sent_at,
        "status": outcome.status,
        "error": outcome.error,
        "done": outcome.move_to is not None,
        "position": cursor.position if outcome.move_to is None else outcome.move_to,
    }


async def look_again(
    connection: psycopg.AsyncConnection, consumer: Consumer, cursor: Cursor
) -> Cursor:
    """Take in that somebody stored how far the cursor is in memory, and nothing else.

    Raises:
        CursorMoved: the cursor is another by now.
    """
    answer = await connection.execute(
        _RELOAD, [consumer.replay_epoch, cursor.consumer_id, cursor.partition]
    )
    row = await answer.fetchone()
    if row is None:
        raise CursorMoved
    version, position, batch_id, owner = row
    is_within = cursor.stored_position <= position <= cursor.position
    if batch_id is not None or not is_within or owner != cursor.owner:
        raise CursorMoved
    return replace(cursor, version=version)


async def _move(connection: psycopg.AsyncConnection, parameters: dict[str, object]) -> str:
    answer = await connection.execute(_RECORD_ATTEMPT, parameters)
    row = await answer.fetchone()
    if row is None:
        raise CursorMoved
    return str(row[0])
