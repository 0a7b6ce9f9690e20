"""Messages of pulled consumers out of their places in the log: handed back, or behind such.

The table is `parked`. Its rows of a key are handed out one at a time, in order: the first is
`failing` and due at some time, the others are `waiting`. A transaction that changes which row is
the first holds the cursor of its partition, as does one that puts another row behind.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

import psycopg

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.parked.heads import promote
from triggerkit.consumers.parked.origin import COLUMNS as ORIGIN_COLUMNS
from triggerkit.consumers.parked.origin import Origin
from triggerkit.consumers.parked.states import IN_THE_WAY
from triggerkit.consumers.pull.leases import LeasedMessages
from triggerkit.consumers.render import IdempotencyKeys
from triggerkit.consumers.selection import Faulty
from triggerkit.log.entry import Entry

State = Literal["failing", "waiting", "blocked", "dead"]

#: Due messages at the head of their keys. One that was handed back comes again once the rest of its
#: lease is done: before, an earlier one of its key may be on its way.
_DUE = """
SELECT p.partition, p.position, convert_to(p.body, 'UTF8')
FROM triggerkit.parked p
LEFT JOIN triggerkit.cursors c ON c.consumer_id = p.consumer_id AND c.partition = p.partition
WHERE p.consumer_id = %s AND p.state = 'failing' AND p.due_at <= clock_timestamp()
  AND p.position <= coalesce(c.position, p.position)
ORDER BY p.due_at LIMIT %s FOR NO KEY UPDATE OF p SKIP LOCKED
"""

_LEASE = """
UPDATE triggerkit.parked p
SET lease_id = %s, due_at = clock_timestamp() + make_interval(secs => %s)
FROM unnest(%s::smallint[], %s::bigint[]) AS g (partition, position)
WHERE p.consumer_id = %s AND p.partition = g.partition AND p.position = g.position
"""

_KEYS = f"""
SELECT DISTINCT key FROM triggerkit.parked
WHERE consumer_id = %s AND state IN {IN_THE_WAY} AND key = ANY (%s)
  AND hashtext(key) = ANY (ARRAY(SELECT hashtext(k) FROM unnest(%s::text[]) k))
"""  # noqa: S608 - of constants

_PUT = f"""
INSERT INTO triggerkit.parked
    (consumer_id, partition, position, {ORIGIN_COLUMNS}, key, body, reason, state, attempts, due_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,
    clock_timestamp() + make_interval(secs => %s))
ON CONFLICT DO NOTHING
"""  # noqa: S608 - of constants

_LOCK_CURSORS = """
SELECT FROM triggerkit.cursors WHERE consumer_id = %s AND partition = ANY (%s::smallint[])
ORDER BY partition FOR NO KEY UPDATE
"""

_REMOVE = """
DELETE FROM triggerkit.parked p USING unnest(%(partitions)s::smallint[], %(positions)s::bigint[])
    AS g (partition, position)
WHERE p.consumer_id = %(consumer_id)s AND p.partition = g.partition AND p.position = g.position
  AND p.lease_id = %(lease)s
RETURNING p.position, p.key
"""

#: Handed back again: one attempt more, and the last one makes it `blocked` or `dead`.
_HAND_BACK = """
UPDATE triggerkit.parked p SET attempts = p.attempts + 1, lease_id = NULL,
    due_at = clock_timestamp() + make_interval(secs => %(delay_s)s),
    state = CASE WHEN p.attempts + 1 >= %(max_attempts)s THEN %(exhausted)s ELSE 'failing' END
FROM unnest(%(partitions)s::smallint[], %(positions)s::bigint[]) AS g (partition, position)
WHERE p.consumer_id = %(consumer_id)s AND p.partition = g.partition AND p.position = g.position
  AND p.lease_id = %(lease)s
RETURNING p.position, p.key
"""

_EXTEND = """
UPDATE triggerkit.parked p
SET due_at = greatest(p.due_at, clock_timestamp() + make_interval(secs => %(seconds)s))
FROM unnest(%(partitions)s::smallint[], %(positions)s::bigint[]) AS g (partition, position)
WHERE p.consumer_id = %(consumer_id)s AND p.partition = g.partition AND p.position = g.position
  AND p.lease_id = %(lease)s
RETURNING p.position, p.key
"""

#: A message that is tried waits when an earlier one of its key was set aside after it.
_HOLD_BACK = f"""
UPDATE triggerkit.parked p SET state = 'waiting', lease_id = NULL
WHERE p.consumer_id = %(consumer_id)s AND p.state = 'failing' AND p.key = ANY (%(keys)s)
  AND hashtext(p.key) = ANY (ARRAY(SELECT hashtext(k) FROM unnest(%(keys)s::text[]) k))
  AND EXISTS (
    SELECT FROM triggerkit.parked e
    WHERE e.consumer_id = p.consumer_id AND hashtext(e.key) = hashtext(p.key) AND e.key = p.key
      AND e.position < p.position AND e.state IN {IN_THE_WAY})
"""  # noqa: S608 - of constants

#: What no number of attempts reaches.
_FOR_EVER = 2**31 - 1

_WAITS = "waits behind an earlier message of its key"


class SetAside(NamedTuple):
    """A message to set aside; `partition` is that of its consumer's cursor."""

    partition: int
    position: int
    origin: Origin
    key: str
    body: bytes
    reason: str
    state: State
    attempts: int = 0
    delay_s: float = 0.0


class Due(NamedTuple):
    """A message that is handed out again."""

    partition: int
    position: int
    body: bytes


def exhausted_state(consumer: Consumer) -> Literal["blocked", "dead"]:
    """Return what becomes of a message that cannot be delivered, or whose attempts are used up."""
    return "blocked" if consumer.definition.on_exhausted == "block" else "dead"


def waiting(consumer: Consumer, entry: Entry, body: bytes) -> SetAside:
    """Return a message whose key has an earlier one set aside."""
    return _set_aside(consumer, entry, body, _WAITS, "waiting")


def faulty(consumer: Consumer, entry: Entry, body: bytes, fault: Faulty) -> SetAside:
    """Return a message that cannot be handed out; one that was tried may be, when somebody says
    so."""
    attempts = 1 if fault.is_retryable else 0
    return _set_aside(consumer, entry, body, fault.reason, _ended(consumer, entry), attempts)


def handed_back(consumer: Consumer, entry: Entry, body: bytes, delay_s: float) -> SetAside:
    """Return a message that a caller gave back for the first time."""
    is_last = consumer.definition.max_attempts == 1 or entry.action == "truncate"
    state: State = _ended(consumer, entry) if is_last else "failing"
    return _set_aside(consumer, entry, body, "handed back", state, 1, delay_s)


def _ended(consumer: Consumer, entry: Entry) -> Literal["blocked", "dead"]:
    # What was written after a truncate goes on without it, and it does not come after that.
    return "dead" if entry.action == "truncate" else exhausted_state(consumer)


def _set_aside(
    consumer: Consumer,
    entry: Entry,
    body: bytes,
    reason: str,
    state: State,
    attempts: int = 0,
    delay_s: float = 0.0,
) -> SetAside:
    origin = Origin.of(entry, IdempotencyKeys(consumer).of(entry))
    place, key = (entry.partition, entry.position), consumer.key_of(entry)
    return SetAside(*place, origin, key, body, reason, state, attempts, delay_s)


async def due(connection: psycopg.AsyncConnection, consumer_id: int, limit: int) -> list[Due]:
    """Lock and return what is due, at most `limit`; in a transaction."""
    cursor = await connection.execute(_DUE, [consumer_id, limit], binary=True)
    return [Due._make(row) for row in await cursor.fetchall()]


async def lease(
    connection: psycopg.AsyncConnection,
    consumer: Consumer,
    lease_id: str,
    messages: Sequence[Due],
) -> None:
    """Hand out `messages`, locked by `due`, under a lease."""
    partitions, positions = [m.partition for m in messages], [m.position for m in messages]
    seconds = consumer.definition.timeout_s
    await connection.execute(_LEASE, [lease_id, seconds, partitions, positions, consumer.id])


async def block(
    connection: psycopg.AsyncConnection, consumer_id: int, message: Due, reason: str
) -> None:
    """Block a message that was due and cannot be handed out: its key waits for somebody."""
    await connection.execute(
        "UPDATE triggerkit.parked SET state = 'blocked', reason = %s, lease_id = NULL "
        "WHERE consumer_id = %s AND partition = %s AND position = %s",
        [reason, consumer_id, message.partition, message.position],
    )


async def set_aside_keys(
    connection: psycopg.AsyncConnection, consumer_id: int, keys: Collection[str]
) -> set[str]:
    """Return those of `keys` that have a message set aside, behind which others must wait."""
    listed = list(keys)
    cursor = await connection.execute(_KEYS, [consumer_id, listed, listed])
    return {key for (key,) in await cursor.fetchall()}


async def put(
    connection: psycopg.AsyncConnection, consumer_id: int, messages: Sequence[SetAside]
) -> None:
    """Set messages aside; the caller holds their cursors."""
    rows = [[consumer_id, *m[:2], *m.origin, m.key, m.body.decode(), *m[5:]] for m in messages]
    async with connection.cursor() as cursor:
        await cursor.executemany(_PUT, rows)


async def arrange(
    connection: psycopg.AsyncConnection, consumer_id: int, keys: Collection[str]
) -> None:
    """See that of each key only the first message is tried; the caller holds their cursors."""
    await connection.execute(_HOLD_BACK, {"consumer_id": consumer_id, "keys": list(keys)})
    await promote(connection, consumer_id, keys)


async def acknowledge(
    connection: psycopg.AsyncConnection, consumer_id: int, held: Sequence[LeasedMessages]
) -> list[LeasedMessages]:
    """Remove messages that are done and let the next of their keys go; returns what is stale."""
    async with connection.transaction():
        return await _change(connection, _REMOVE, consumer_id, held, {})


async def hand_back(
    connection: psycopg.AsyncConnection,
    consumer: Consumer,
    held: Sequence[LeasedMessages],
    delay_s: float,
) -> list[LeasedMessages]:
    """Have messages tried again after `delay_s`; returns what is stale."""
    most = consumer.definition.max_attempts
    given = {
        "delay_s": delay_s,
        "max_attempts": _FOR_EVER if most is None else most,
        "exhausted": exhausted_state(consumer),
    }
    async with connection.transaction():
        return await _change(connection, _HAND_BACK, consumer.id, held, given)


async def extend(
    connection: psycopg.AsyncConnection,
    consumer_id: int,
    held: Sequence[LeasedMessages],
    seconds: float,
) -> list[LeasedMessages]:
    """Let leases last at least `seconds` from now; returns what is stale."""
    async with connection.transaction():
        return await _change(connection, _EXTEND, consumer_id, held, {"seconds": seconds})


async def _change(
    connection: psycopg.AsyncConnection,
    statement: str,
    consumer_id: int,
    held: Sequence[LeasedMessages],
    given: Mapping[str, object],
) -> list[LeasedMessages]:
    partitions = sorted({one.partition for one in held})
    await connection.execute(_LOCK_CURSORS, [consumer_id, partitions])
    stale = []
    keys: set[str] = set()
    for one in held:
        parameters = {
            "consumer_id": consumer_id,
            "partitions": [one.partition] * len(one.positions),
            "positions": [int(position) for position in one.positions],
            "lease": one.lease,
            **given,
        }
        cursor = await connection.execute(statement, parameters)
        found = {str(position): key for position, key in await cursor.fetchall()}
        keys.update(found.values())
        if left := [position for position in one.positions if position not in found]:
            stale.append(one.only(left))
    if keys and statement is not _EXTEND:
        await promote(connection, consumer_id, keys)
    return stale
