"""Loading consumers and moving their cursors."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.consumer import BackfillSpan, Consumer, Target
from triggerkit.consumers.definition import ConsumerDefinition

_CONSUMERS = """
SELECT c.id, c.name, c.definition, c.replay_epoch, c.state, c.database_id, d.name AS database_name,
       d.slot_epoch, d.system_identifier, e.name AS endpoint_name, e.url
FROM triggerkit.consumers c
JOIN triggerkit.databases d ON d.id = c.database_id
LEFT JOIN triggerkit.endpoints e ON e.id = c.endpoint_id
WHERE c.database_id = %s ORDER BY c.id
"""

_SPANS = """
SELECT consumer_id, schema_name, table_name, first_position, last_position
FROM triggerkit.backfills
WHERE first_position IS NOT NULL AND consumer_id IN (
    SELECT id FROM triggerkit.consumers WHERE database_id = %s)
"""

_LOAD = """
SELECT consumer_id, partition, position, batch_id, batch_last, attempt
FROM triggerkit.cursors WHERE consumer_id = %s ORDER BY partition
"""

#: Remembers the next attempt before it is sent.
_BEGIN = """
UPDATE triggerkit.cursors SET position = %s, batch_id = %s, batch_last = %s, attempt = %s
WHERE consumer_id = %s AND partition = %s
"""

#: Notes an attempt's outcome and moves the cursor: the one statement a delivered batch costs.
_SETTLE = """
WITH noted AS (
    INSERT INTO triggerkit.deliveries (consumer_id, partition, first_position, last_position,
        batch_id, attempt, messages, sent_at, answered_at, status, error)
    VALUES (%(consumer_id)s, %(partition)s, %(first)s, %(last)s, %(batch_id)s, %(attempt)s,
        %(messages)s, %(sent_at)s, clock_timestamp(), %(status)s, %(error)s))
UPDATE triggerkit.cursors SET position = %(position)s,
    batch_id = CASE WHEN %(done)s THEN NULL ELSE batch_id END,
    batch_last = CASE WHEN %(done)s THEN NULL ELSE batch_last END,
    attempt = CASE WHEN %(done)s THEN 0 ELSE attempt END
WHERE consumer_id = %(consumer_id)s AND partition = %(partition)s
"""

_PARK = """
INSERT INTO triggerkit.parked
    (consumer_id, partition, position, key, body, reason, attempts)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""


@dataclass(slots=True)
class Cursor:
    """How far a consumer is in one partition, and the batch whose outcome is not known yet.

    All up to and including `position` is done. `batch_id` and `batch_last` are set from before an
    attempt is sent until its outcome is noted; `attempt` counts the attempts of that batch.
    """

    consumer_id: int
    partition: int
    position: int
    batch_id: str | None
    batch_last: int | None
    attempt: int


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of one attempt. `status` is the HTTP status, None when no answer came.

    `move_to` is where the cursor goes: None while the batch is to be sent again.
    """

    first: int
    last: int
    batch_id: str
    attempt: int
    messages: int
    sent_at: datetime
    status: int | None
    error: str | None
    move_to: int | None


@dataclass(frozen=True, slots=True)
class ParkedMessage:
    """A message taken out of the way so that the others can go on."""

    position: int
    key: str
    body: bytes
    reason: str


class CursorStore:
    """The consumers of one database and their cursors."""

    def __init__(self, pool: AsyncConnectionPool, database_id: int, public_url: str) -> None:
        self._pool = pool
        self._database_id = database_id
        self._public_url = public_url

    async def consumers(self) -> list[Consumer]:
        """All consumers of the database."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_SPANS, [self._database_id])
            spans: dict[int, list[BackfillSpan]] = {}
            for consumer_id, schema, table, first, last in await cursor.fetchall():
                span = BackfillSpan((schema, table), first, last)
                spans.setdefault(consumer_id, []).append(span)
            cursor = await connection.execute(_CONSUMERS, [self._database_id])
            return [
                Consumer(
                    id=consumer_id,
                    name=name,
                    definition=ConsumerDefinition.from_json(definition),
                    replay_epoch=replay_epoch,
                    state=state,
                    database_id=database_id,
                    database_name=database_name,
                    database_epoch=slot_epoch,
                    system_identifier=system,
                    target=self._target(endpoint_name, url),
                    spans=tuple(spans.get(consumer_id, ())),
                )
                for (
                    consumer_id, name, definition, replay_epoch, state, database_id,
                    database_name, slot_epoch, system, endpoint_name, url,
                ) in await cursor.fetchall()
            ]  # fmt: skip

    def _target(self, name: str | None, url: str) -> Target | None:
        if name is None:
            return None
        return Target(name, url, is_ours=url.startswith(f"{self._public_url}/"))

    async def load(self, consumer_id: int) -> list[Cursor]:
        """The consumer's cursors, one per partition."""
        async with (
            self._pool.connection() as connection,
            connection.cursor(row_factory=class_row(Cursor)) as cursor,
        ):
            await cursor.execute(_LOAD, [consumer_id])
            return await cursor.fetchall()

    async def begin(self, cursor: Cursor) -> None:
        """Remember what is sent next; durable before it returns."""
        async with self._pool.connection() as connection:
            await connection.execute(
                _BEGIN,
                [
                    cursor.position,
                    cursor.batch_id,
                    cursor.batch_last,
                    cursor.attempt,
                    cursor.consumer_id,
                    cursor.partition,
                ],
            )

    async def settle(
        self, cursor: Cursor, settled: Settled, parked: list[ParkedMessage] | None = None
    ) -> None:
        """Note an attempt's outcome, what is parked, and the cursor's move, all at once."""
        parameters = {
            "consumer_id": cursor.consumer_id,
            "partition": cursor.partition,
            "first": settled.first,
            "last": settled.last,
            "batch_id": settled.batch_id,
            "attempt": settled.attempt,
            "messages": settled.messages,
            "sent_at": settled.sent_at,
            "status": settled.status,
            "error": settled.error,
            "done": settled.move_to is not None,
            "position": cursor.position if settled.move_to is None else settled.move_to,
        }
        async with self._pool.connection() as connection:
            if not parked:
                await connection.execute(_SETTLE, parameters)
                return
            async with connection.transaction():
                await connection.execute(_SETTLE, parameters)
                for message in parked:
                    await connection.execute(
                        _PARK,
                        [
                            cursor.consumer_id,
                            cursor.partition,
                            message.position,
                            message.key,
                            message.body.decode(),
                            message.reason,
                            settled.attempt,
                        ],
                    )

    async def parked_rows(self, consumer_id: int) -> set[str]:
        """The rows that have a parked message: their later messages wait behind it."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT DISTINCT key FROM triggerkit.parked WHERE consumer_id = %s", [consumer_id]
            )
            return {key for (key,) in await cursor.fetchall()}

    async def disable(self, consumer_id: int) -> None:
        """The consumer's endpoint is gone: nothing more is sent to it."""
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
            await connection.execute("SELECT pg_notify('triggerkit_consumers', '')")

    async def save_error(self, consumer_id: int, error: str | None) -> None:
        """Show the last delivery error with the consumer, or clear it."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE triggerkit.consumers SET last_error = %s "
                "WHERE id = %s AND last_error IS DISTINCT FROM %s",
                [error, consumer_id, error],
            )
