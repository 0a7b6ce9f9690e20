"""Replay: a consumer's cursors move back, and what the log still holds is delivered again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from triggerkit.consumers.cursors.store import LOCK_CURSORS
from triggerkit.consumers.definition import BEGINNING
from triggerkit.errors import ConfigurationError
from triggerkit.log.entry import PARTITIONS
from triggerkit.log.search import CLOCK_SLACK, first_since

#: As `_MOVE` and `_UNPARK`, to where each partition of a log on Kafka begins.
_MOVE_TO_FIRST = """
UPDATE triggerkit.cursors k SET position = least(k.position, x.first - 1), batch_id = NULL,
    batch_last = NULL, attempt = 0, lease_until = NULL, settled = '{}'
FROM generate_series(0, %(partitions)s - 1) n (partition)
LEFT JOIN triggerkit.log_extents e ON e.database_id = %(database)s AND e.partition = n.partition
CROSS JOIN LATERAL (SELECT coalesce(e.first_position, 1) AS first) x
WHERE k.consumer_id = %(consumer)s AND k.partition = n.partition
"""

_UNPARK_FROM_FIRST = """
DELETE FROM triggerkit.parked p
USING generate_series(0, %(partitions)s - 1) n (partition)
LEFT JOIN triggerkit.log_extents e ON e.database_id = %(database)s AND e.partition = n.partition
WHERE p.consumer_id = %(consumer)s AND p.partition = n.partition
  AND p.position >= coalesce(e.first_position, 1)
"""

_FIRST = "SELECT min(first_position) FROM triggerkit.log_extents WHERE database_id = %s"

#: Holds the row, so that retention drops nothing of the log until the cursors were moved.
_LOG = """
SELECT d.id, d.retained_from, d.next_position, d.log
FROM triggerkit.databases d JOIN triggerkit.consumers c ON c.database_id = d.id WHERE c.id = %s
FOR SHARE OF d
"""

#: The first entry from a position on that was committed at or after a time.
_FIRST_COMMITTED = """
SELECT min(e.position) FROM generate_series(0, %s) p CROSS JOIN LATERAL (
    SELECT position FROM triggerkit.events
    WHERE database_id = %s AND partition = p AND position >= %s AND commit_at >= %s
    ORDER BY position LIMIT 1) e
"""

#: Fences what is being delivered now: its outcome belongs to the epoch before.
_NEW_EPOCH = "UPDATE triggerkit.consumers SET replay_epoch = replay_epoch + 1 WHERE id = %s"

_MOVE = """
UPDATE triggerkit.cursors SET position = least(position, %s), batch_id = NULL, batch_last = NULL,
    attempt = 0, lease_until = NULL, settled = '{}'
WHERE consumer_id = %s
"""

#: What is parked behind the new place comes again by the log.
_UNPARK = "DELETE FROM triggerkit.parked WHERE consumer_id = %s AND position > %s"


@dataclass(frozen=True, slots=True)
class Rewound:
    """The start of a replay: the first position that is delivered again, and how many there are
    from there to the log's end, those of other consumers counted too."""

    first_position: int
    entries: int
    parked_removed: int


async def rewind(
    state: psycopg.AsyncConnection, consumer_id: int, to: str | int | float
) -> Rewound:
    """Deliver again from `to` on: "beginning" (of the retained log), a position, or an ISO time.

    A repeated message has another idempotency key than before, so that its tasks run again.

    Raises:
        ConfigurationError: `to` is none of these, or the log does not reach so far back.
    """
    async with state.transaction():
        cursor = await state.execute(_LOG, [consumer_id])
        row = await cursor.fetchone()
        assert row is not None
        database_id, retained_from, next_position, place = row
        if place == "kafka":
            if to == BEGINNING:
                return await _rewind_to_first(state, consumer_id, database_id, next_position)
            _require_position(to)
        first = await _position(state, database_id, to, retained_from, next_position)
        await state.execute(_NEW_EPOCH, [consumer_id])
        await state.execute(LOCK_CURSORS, [consumer_id])
        await state.execute(_MOVE, [first - 1, consumer_id])
        cursor = await state.execute(_UNPARK, [consumer_id, first - 1])
        return Rewound(first, next_position - first, cursor.rowcount)


async def _rewind_to_first(
    state: psycopg.AsyncConnection, consumer_id: int, database_id: int, next_position: int
) -> Rewound:
    """Deliver again what each partition of a log on Kafka still has, wherever that begins."""
    given = {"consumer": consumer_id, "database": database_id, "partitions": PARTITIONS}
    row = await (await state.execute(_FIRST, [database_id])).fetchone()
    first = row[0] if row is not None and row[0] is not None else 1
    await state.execute(_NEW_EPOCH, [consumer_id])
    await state.execute(LOCK_CURSORS, [consumer_id])
    await state.execute(_MOVE_TO_FIRST, given)
    cursor = await state.execute(_UNPARK_FROM_FIRST, given)
    return Rewound(first, next_position - first, cursor.rowcount)


def _require_position(to: str | int | float) -> None:
    if not _is_position(to):
        _time(str(to))
        raise ConfigurationError(
            "a log on Kafka is not searched by time; replay from a position, or from the beginning"
        )


def _is_position(to: str | int | float) -> bool:
    return isinstance(to, int) or (isinstance(to, str) and bool(re.fullmatch(r"\d{1,18}", to)))


async def _position(
    state: psycopg.AsyncConnection,
    database_id: int,
    to: str | int | float,
    retained_from: int,
    next_position: int,
) -> int:
    if to == BEGINNING:
        return retained_from
    if _is_position(to):
        position = int(to)
        if position < retained_from:
            raise ConfigurationError(
                f"the log begins at position {retained_from}; retention has dropped position "
                f"{position}: replay from the beginning, or start a backfill"
            )
        if position >= next_position:
            raise ConfigurationError(f"the log ends at position {next_position - 1}")
        return position
    at = _time(str(to))
    about = await first_since(state, database_id, at, retained_from, next_position, CLOCK_SLACK)
    cursor = await state.execute(_FIRST_COMMITTED, [PARTITIONS - 1, database_id, about, at])
    row = await cursor.fetchone()
    return next_position if row is None or row[0] is None else int(row[0])


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is not a position in the log; use 'beginning', a number, or a time such as "
            "2026-11-22T08:00:00+00:00"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
