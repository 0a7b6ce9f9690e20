"""Lease ranges of the log under the cursors of a pulled consumer to its callers.

A cursor's lease is the row itself: `batch_id` names it, `batch_last` is its last position, `leased`
counts its messages that are not acknowledged yet, and `settled` lists those that are while others
are not. Every position up to `position` is done.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from secrets import token_urlsafe

import psycopg

from triggerkit.log.entry import PARTITIONS
from triggerkit.state.channels import LOG

#: Leases what is handed out; a range without messages is passed over.
LEASE = """
WITH taken AS (
    SELECT * FROM unnest(%(partitions)s::smallint[], %(firsts)s::bigint[], %(lasts)s::bigint[],
        %(counts)s::int[]) AS t (partition, first, last, messages)
), noted AS (
    INSERT INTO triggerkit.deliveries (consumer_id, partition, first_position, last_position,
        batch_id, attempt, messages, sent_at)
    SELECT c.consumer_id, t.partition, t.first, t.last, %(lease)s, c.attempt + 1, t.messages,
        clock_timestamp()
    FROM taken t JOIN triggerkit.cursors c
        ON c.consumer_id = %(consumer_id)s AND c.partition = t.partition
    WHERE t.messages > 0
)
UPDATE triggerkit.cursors c SET
    position = CASE WHEN t.messages > 0 THEN c.position ELSE t.last END,
    batch_id = CASE WHEN t.messages > 0 THEN %(lease)s END,
    batch_last = CASE WHEN t.messages > 0 THEN t.last END,
    lease_until = CASE WHEN t.messages > 0
        THEN clock_timestamp() + make_interval(secs => %(timeout_s)s) END,
    leased = t.messages,
    attempt = CASE WHEN t.messages > 0 THEN c.attempt + 1 ELSE 0 END,
    settled = CASE WHEN t.messages > 0 OR c.settled = '{}' THEN c.settled
        ELSE ARRAY(SELECT s FROM unnest(c.settled) s WHERE s > t.last ORDER BY s) END
FROM taken t
WHERE c.consumer_id = %(consumer_id)s AND c.partition = t.partition
"""

NOTE_SET_ASIDE = """
UPDATE triggerkit.cursors c
SET settled = ARRAY(SELECT DISTINCT s FROM unnest(c.settled || %s::bigint[]) s ORDER BY s)
WHERE consumer_id = %s AND partition = %s AND batch_id IS NOT NULL
"""

#: Ends leases of which all is done at once, without looking at each message: that many different
#: ones of the range were named as were handed out, and none before.
_ACKNOWLEDGE_WHOLE = """
WITH held AS (
    SELECT h.number, c.partition, c.batch_id, c.batch_last
    FROM unnest(%(partitions)s::smallint[], %(leases)s::text[], %(counts)s::int[],
        %(lows)s::bigint[], %(highs)s::bigint[]) WITH ORDINALITY
        AS h (partition, lease, count, low, high, number)
    JOIN triggerkit.cursors c ON c.consumer_id = %(consumer_id)s AND c.partition = h.partition
        AND c.batch_id = h.lease
    WHERE c.leased = h.count AND c.settled = '{}' AND c.position < h.low AND c.batch_last >= h.high
    ORDER BY c.partition FOR NO KEY UPDATE OF c
), noted AS (
    UPDATE triggerkit.deliveries d SET answered_at = clock_timestamp(), status = 200
    FROM held h
    WHERE d.consumer_id = %(consumer_id)s AND d.partition = h.partition
      AND d.last_position = h.batch_last AND d.batch_id = h.batch_id
)
UPDATE triggerkit.cursors c SET position = h.batch_last, batch_id = NULL, batch_last = NULL,
    lease_until = NULL, attempt = 0, leased = 0
FROM held h WHERE c.consumer_id = %(consumer_id)s AND c.partition = h.partition
RETURNING h.number
"""

#: Ends or shrinks leases: `numbers` says for each of `positions` which of `leases` it is of. Of a
#: lease that is not the cursor's any more nothing is acknowledged, and no row comes back.
_ACKNOWLEDGE = """
WITH held AS (
    SELECT h.number, c.partition, c.position, c.batch_id, c.batch_last, c.settled, c.leased
    FROM unnest(%(partitions)s::smallint[], %(leases)s::text[]) WITH ORDINALITY
        AS h (partition, lease, number)
    JOIN triggerkit.cursors c ON c.consumer_id = %(consumer_id)s AND c.partition = h.partition
        AND c.batch_id = h.lease
    ORDER BY c.partition FOR NO KEY UPDATE OF c
), given AS (
    SELECT h.number, array_agg(DISTINCT g.position) AS positions
    FROM held h
    JOIN unnest(%(numbers)s::int[], %(positions)s::bigint[]) AS g (number, position)
        ON g.number = h.number
    WHERE g.position > h.position AND g.position <= h.batch_last AND g.position <> ALL (h.settled)
    GROUP BY h.number
), outcome AS (
    SELECT h.*, coalesce(g.positions, '{}') AS positions,
           coalesce(cardinality(g.positions), 0) >= h.leased AS is_over
    FROM held h LEFT JOIN given g USING (number)
), noted AS (
    UPDATE triggerkit.deliveries d SET answered_at = clock_timestamp(), status = 200
    FROM outcome o
    WHERE o.is_over AND d.consumer_id = %(consumer_id)s AND d.partition = o.partition
      AND d.last_position = o.batch_last AND d.batch_id = o.batch_id
)
UPDATE triggerkit.cursors c SET
    position = CASE WHEN o.is_over THEN o.batch_last ELSE c.position END,
    batch_id = CASE WHEN o.is_over THEN NULL ELSE c.batch_id END,
    batch_last = CASE WHEN o.is_over THEN NULL ELSE c.batch_last END,
    lease_until = CASE WHEN o.is_over THEN NULL ELSE c.lease_until END,
    attempt = CASE WHEN o.is_over THEN 0 ELSE c.attempt END,
    leased = CASE WHEN o.is_over THEN 0 ELSE c.leased - cardinality(o.positions) END,
    settled = CASE
        WHEN o.is_over AND o.settled = '{}' THEN '{}'
        WHEN o.is_over THEN ARRAY(SELECT s FROM unnest(o.settled) s WHERE s > o.batch_last)
        ELSE ARRAY(SELECT s FROM unnest(o.settled || o.positions) s ORDER BY s) END
FROM outcome o
WHERE c.consumer_id = %(consumer_id)s AND c.partition = o.partition
RETURNING o.number
"""

#: Whether the log has entries behind a cursor `c`.
HAS_MORE = f"""
EXISTS (
    SELECT FROM generate_series(
        greatest(c.partition, 0),
        CASE WHEN c.partition < 0 THEN {PARTITIONS - 1} ELSE c.partition END
    ) p CROSS JOIN LATERAL (
        SELECT FROM triggerkit.events e
        WHERE e.database_id = %(database_id)s AND e.partition = p AND e.position > c.position
        ORDER BY e.position LIMIT 1) e
)
"""  # noqa: S608 - of constants

#: Tells the waiting that cursors which were just let go have more for them.
_RING_FOR_MORE = f"""
SELECT pg_notify('{LOG}', 'consumer ' || %(consumer_id)s)
WHERE EXISTS (
    SELECT FROM triggerkit.cursors c
    WHERE c.consumer_id = %(consumer_id)s AND c.partition = ANY (%(partitions)s::smallint[])
      AND c.lease_until IS NULL AND {HAS_MORE})
"""  # noqa: S608 - of constants

_EXTEND = """
UPDATE triggerkit.cursors c
SET lease_until = greatest(c.lease_until, clock_timestamp() + make_interval(secs => %(seconds)s))
FROM unnest(%(partitions)s::smallint[], %(leases)s::text[]) WITH ORDINALITY
    AS h (partition, lease, number)
WHERE c.consumer_id = %(consumer_id)s AND c.partition = h.partition AND c.batch_id = h.lease
RETURNING h.number
"""

#: All that was leased is handed out again, later.
_HAND_BACK = """
UPDATE triggerkit.cursors c SET batch_id = NULL, batch_last = NULL, leased = 0,
    lease_until = clock_timestamp() + make_interval(secs => %s)
FROM unnest(%s::smallint[], %s::text[]) AS h (partition, lease)
WHERE c.consumer_id = %s AND c.partition = h.partition AND c.batch_id = h.lease
"""

_HEAD = re.compile(r"(p?)(-1|[0-7])\.([\w-]{16})", re.ASCII)

#: Digits of the largest position.
_POSITION_DIGITS = 18


def new_lease() -> str:
    """Return a lease's id, which nobody can guess."""
    return token_urlsafe(12)


def ack_head(partition: int, lease: str, *, parked: bool = False) -> str:
    """Return the beginning of a message's `ack_id`; its position follows."""
    return f"{'p' if parked else ''}{partition}.{lease}."


@dataclass(frozen=True, slots=True)
class LeasedMessages:
    """Messages of one lease that a caller names, by their positions as text.

    `is_parked` when the lease is on parked messages, not on a cursor.
    """

    partition: int
    lease: str
    is_parked: bool
    positions: Sequence[str]

    def only(self, positions: Sequence[str]) -> LeasedMessages:
        """Do the same lease, of these messages."""
        return LeasedMessages(self.partition, self.lease, self.is_parked, positions)

    @property
    def ack_ids(self) -> list[str]:
        """Return their names as the caller gave them."""
        head = ack_head(self.partition, self.lease, parked=self.is_parked)
        return [head + position for position in self.positions]


def read_ack_ids(ack_ids: Iterable[str]) -> tuple[list[LeasedMessages], list[str]]:
    """Sort `ack_ids` by lease; the second list has those that we never gave out."""
    heads: dict[str, list[str]] = {}
    for ack_id in ack_ids:
        head, _, position = ack_id.rpartition(".")
        positions = heads.get(head)
        if positions is None:
            positions = heads[head] = []
        positions.append(position)
    held: list[LeasedMessages] = []
    unknown: list[str] = []
    for head, positions in heads.items():
        match = _HEAD.fullmatch(head)
        good: Sequence[str] = []
        if match is not None:
            # A thousand at a time; only when one of them is not a position each is looked at.
            are_positions = all(positions) and _is_number("".join(positions))
            is_good = are_positions and max(map(len, positions)) <= _POSITION_DIGITS
            good = positions if is_good else list(filter(_is_position, positions))
        if match is not None and good:
            parked, partition, lease = match.groups()
            held.append(LeasedMessages(int(partition), lease, bool(parked), good))
        if len(good) < len(positions):
            unknown += [
                f"{head}.{text}" if head else text
                for text in positions
                if match is None or not _is_position(text)
            ]
    return held, unknown


def _is_position(text: str) -> bool:
    return _is_number(text) and len(text) <= _POSITION_DIGITS


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii()


async def acknowledge(
    connection: psycopg.AsyncConnection,
    consumer_id: int,
    database_id: int,
    held: Sequence[LeasedMessages],
    *,
    notify: bool = True,
) -> list[LeasedMessages]:
    """Note messages as done; where all of a lease are, the cursor moves past them.

    One turn with the server when all of each lease is done. `notify` tells the waiting, in a
    transaction of its own. Returns what could not be acknowledged, since its lease is gone.
    """
    in_part = await _acknowledge(
        connection, _ACKNOWLEDGE_WHOLE, consumer_id, database_id, held, notify=notify
    )
    if not in_part:
        return []
    return await _acknowledge(
        connection, _ACKNOWLEDGE, consumer_id, database_id, in_part, notify=notify
    )


async def _acknowledge(
    connection: psycopg.AsyncConnection,
    statement: str,
    consumer_id: int,
    database_id: int,
    held: Sequence[LeasedMessages],
    *,
    notify: bool,
) -> list[LeasedMessages]:
    """Returns those that the statement left as they were."""
    parameters: dict[str, object] = {
        "consumer_id": consumer_id,
        "database_id": database_id,
        "partitions": [one.partition for one in held],
        "leases": [one.lease for one in held],
    }
    if statement is _ACKNOWLEDGE:
        numbers = (
            ",".join([str(number)] * len(one.positions)) for number, one in enumerate(held, 1)
        )
        parameters["numbers"] = _array(numbers)
        parameters["positions"] = _array(",".join(one.positions) for one in held)
    else:
        different = [set(map(int, one.positions)) for one in held]
        parameters["counts"] = list(map(len, different))
        parameters["lows"] = list(map(min, different))
        parameters["highs"] = list(map(max, different))
    async with connection.pipeline() as pipeline:
        cursor = await connection.execute(statement, parameters)
        if notify:
            await pipeline.sync()
            await connection.execute(_RING_FOR_MORE, parameters)
        acknowledged = {number for (number,) in await cursor.fetchall()}
    return [one for number, one in enumerate(held, 1) if number not in acknowledged]


async def extend(
    connection: psycopg.AsyncConnection,
    consumer_id: int,
    held: Sequence[LeasedMessages],
    seconds: float,
) -> list[LeasedMessages]:
    """Let leases last at least `seconds` from now; returns those that are gone."""
    cursor = await connection.execute(
        _EXTEND,
        {
            "consumer_id": consumer_id,
            "partitions": [one.partition for one in held],
            "leases": [one.lease for one in held],
            "seconds": seconds,
        },
    )
    kept = {number for (number,) in await cursor.fetchall()}
    return [one for number, one in enumerate(held, 1) if number not in kept]


async def hand_back(
    connection: psycopg.AsyncConnection,
    consumer_id: int,
    held: Sequence[LeasedMessages],
    delay_s: float,
) -> None:
    """End leases: what they are on is handed out again after `delay_s`, by its place in the log."""
    if held:
        places = [one.partition for one in held], [one.lease for one in held]
        await connection.execute(_HAND_BACK, [delay_s, *places, consumer_id])


def _array(items: Iterable[str]) -> str:
    # As text: a thousand numbers are parsed faster by the server than encoded here.
    return f"{{{','.join(items)}}}"
