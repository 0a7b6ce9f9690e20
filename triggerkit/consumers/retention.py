"""Drop the oldest part of the log, and tell consumers that lose messages by it.

What everybody is past goes when it is old enough. What somebody is not past goes only when the log
has reached its limit: then that consumer has a gap, which is shown until it is backfilled.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import psycopg

from triggerkit.consumers.gap import mark_gap
from triggerkit.log.entry import PARTITIONS
from triggerkit.log.retention import (
    TablePartition,
    drop,
    first_captured,
    last_captured,
    table_partitions,
)
from triggerkit.state.reading import Reads, rows_of

logger = logging.getLogger(__name__)

#: Consumers that are not past the log's oldest part are warned of from this share of the limit on.
WARN_SHARE = 0.8

#: Rows of `deliveries` deleted by one statement.
DELETE_ROWS = 10_000

_BOUNDS = "SELECT next_position, retained_from FROM triggerkit.databases WHERE id = %s"

#: What consumers have not got yet of a range of positions. Filters are left aside.
_NOT_GOT = """
FROM triggerkit.consumers c
JOIN triggerkit.cursors k ON k.consumer_id = c.id
JOIN triggerkit.events e ON e.database_id = c.database_id
    AND (k.partition = e.partition OR k.partition = -1) AND e.position > k.position
WHERE c.database_id = %(database)s AND k.position < %(end)s - 1
  AND e.position >= %(first)s AND e.position < %(end)s
  AND CASE WHEN e.consumer_id IS NULL
      THEN c.definition -> 'tables' ? triggerkit.table_text(e.schema_name, e.table_name)
      ELSE e.consumer_id = c.id END
"""

_KNOWN_GAP = """
(SELECT g.cause FROM triggerkit.gaps g
 WHERE g.consumer_id = c.id AND g.kind = 'retention' AND g.closed_at IS NULL)
"""

_BEHIND = f"SELECT c.id, c.name, {_KNOWN_GAP}, count(*) {_NOT_GOT} GROUP BY c.id ORDER BY c.name"

#: Ends at the first one found.
_ANYBODY_BEHIND = f"SELECT EXISTS (SELECT {_NOT_GOT})"

#: Cursors that moved in memory only, since nothing on the way was wanted. A rewind made since has
#: another epoch.
_SAVE = """
WITH p AS (
    SELECT * FROM unnest(%s::int[], %s::int[], %s::int[], %s::bigint[])
        AS p (consumer_id, epoch, partition, position)
), locked AS MATERIALIZED (
    SELECT p.* FROM triggerkit.cursors k JOIN p USING (consumer_id, partition)
    WHERE k.position < p.position
    ORDER BY k.consumer_id, k.partition FOR NO KEY UPDATE OF k
)
UPDATE triggerkit.cursors k SET position = p.position
FROM locked p, triggerkit.consumers c
WHERE k.consumer_id = p.consumer_id AND k.partition = p.partition AND c.id = p.consumer_id
  AND c.replay_epoch = p.epoch AND k.batch_id IS NULL AND k.position < p.position
"""

_SKIP = """
WITH locked AS MATERIALIZED (
    SELECT consumer_id, partition FROM triggerkit.cursors
    WHERE consumer_id = ANY (%(consumers)s) AND position < %(last)s
    ORDER BY consumer_id, partition FOR NO KEY UPDATE
)
UPDATE triggerkit.cursors k SET position = %(last)s, batch_id = NULL, batch_last = NULL,
    attempt = 0, lease_until = NULL, leased = 0, settled = '{}'
FROM locked l
WHERE k.consumer_id = l.consumer_id AND k.partition = l.partition AND k.position < %(last)s
"""

_RETAINED = """
UPDATE triggerkit.databases SET retained_from = %s WHERE id = %s AND retained_from < %s
"""

_TAKE_BACK = "UPDATE triggerkit.databases SET retained_from = %s WHERE id = %s"

#: By the index of each consumer's partitions, in one statement for all of them.
_OLD_DELIVERIES = """
DELETE FROM triggerkit.deliveries WHERE id = ANY (ARRAY(
    SELECT d.id FROM triggerkit.consumers c
    CROSS JOIN generate_series(-1, %(partitions)s - 1) n (partition)
    CROSS JOIN LATERAL (
        SELECT o.id FROM triggerkit.deliveries o
        WHERE o.consumer_id = c.id AND o.partition = n.partition
          AND o.last_position < %(retained_from)s
        ORDER BY o.last_position LIMIT %(rows)s) d
    WHERE c.database_id = %(database)s LIMIT %(rows)s))
"""

_GAP = re.compile(r"positions (\d+) to \d+ ")


@dataclass(frozen=True, slots=True)
class Policy:
    """The time that the log keeps what everybody is past, and its limit in bytes."""

    keep: timedelta
    max_bytes: int


class CursorProgress(NamedTuple):
    """A consumer's place in a partition, as known by the process that delivers to it."""

    consumer_id: int
    replay_epoch: int
    partition: int
    position: int


@dataclass(frozen=True, slots=True)
class Loser:
    """A consumer that has not got `messages` of the log's oldest part yet."""

    consumer_id: int
    name: str
    messages: int
    gap: str | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """The size of a log, and who loses messages by its limit, at about `at`."""

    size_bytes: int
    max_bytes: int
    losers: tuple[Loser, ...] = ()
    at: datetime | None = None

    @property
    def share(self) -> float:
        """The part of the limit that is used."""
        return self.size_bytes / self.max_bytes


async def save_progress(
    connection: psycopg.AsyncConnection, progress: list[CursorProgress]
) -> None:
    """Store how far consumers are that had nothing to store: by it they are past what is old."""
    columns = [list(column) for column in zip(*progress, strict=True)] or [[], [], [], []]
    await connection.execute(_SAVE, columns)


async def retain(connection: psycopg.AsyncConnection, database_id: int, policy: Policy) -> int:
    """Drop what the log need not or must not keep any more; returns the tables dropped.

    What it writes, it writes in short transactions, so that no append waits. A table in use is
    dropped by a later call; the one that is being filled, and the one after it, never are.
    """
    head, retained_from = await _bounds(connection, database_id)
    partitions = await table_partitions(connection, database_id)
    size_bytes = sum(p.size_bytes for p in partitions)
    for partition in partitions:
        if partition.end > head:
            break
        if partition.end > retained_from:
            if size_bytes > policy.max_bytes:
                await _give_up(connection, database_id, partition, policy, size_bytes)
            elif not await _is_done_with(connection, database_id, partition, policy):
                break
            before, retained_from = retained_from, partition.end
            await connection.execute(_RETAINED, [retained_from, database_id, retained_from])
            if await _is_anybody_behind(connection, database_id, partition):
                # Rewound since it was looked at: a rewind holds the row that was just written.
                await connection.execute(_TAKE_BACK, [before, database_id])
                retained_from = before
                break
        size_bytes -= partition.size_bytes
    dropped = 0
    for partition in partitions:
        if partition.end <= retained_from:
            dropped += await drop(connection, partition)
    await delete_deliveries(connection, database_id, retained_from)
    return dropped


def lost_since(known: str | None, first: int) -> int:
    """Return the position from which on a gap tells what was dropped: that of the one that is
    `known`, if one is, or `first`."""
    before = _GAP.search(known or "")
    return int(before[1]) if before else first


async def outlook(connection: Reads, database_id: int, policy: Policy) -> Outlook:
    """Return how near the log is to its limit, and whom that is going to cost messages."""
    (head, retained_from), partitions = await asyncio.gather(
        _bounds(connection, database_id), table_partitions(connection, database_id)
    )
    partitions = [p for p in partitions if p.end > retained_from]
    size_bytes = sum(p.size_bytes for p in partitions)
    if size_bytes < WARN_SHARE * policy.max_bytes or not partitions or partitions[0].end > head:
        return Outlook(size_bytes, policy.max_bytes)
    losers = await _behind(connection, database_id, partitions[0])
    since = await first_captured(connection, database_id, retained_from)
    at = None
    if losers and since is not None:
        now = datetime.now(UTC)
        left = max(0, policy.max_bytes - size_bytes)
        at = now + (now - since) * (left / size_bytes)
    return Outlook(size_bytes, policy.max_bytes, losers, at)


async def _bounds(connection: Reads, database_id: int) -> tuple[int, int]:
    rows = await rows_of(connection, _BOUNDS, [database_id])
    return (rows[0][0], rows[0][1]) if rows else (1, 1)


async def _is_done_with(
    connection: psycopg.AsyncConnection,
    database_id: int,
    partition: TablePartition,
    policy: Policy,
) -> bool:
    """Return whether `partition` is old enough and every consumer, paused ones too, is past it."""
    last = await last_captured(connection, database_id, partition)
    if last is not None and datetime.now(UTC) - last < policy.keep:
        return False
    return not await _is_anybody_behind(connection, database_id, partition)


async def _is_anybody_behind(
    connection: psycopg.AsyncConnection, database_id: int, partition: TablePartition
) -> bool:
    cursor = await connection.execute(_ANYBODY_BEHIND, _range(database_id, partition))
    return await cursor.fetchone() == (True,)


async def _behind(
    connection: Reads, database_id: int, partition: TablePartition
) -> tuple[Loser, ...]:
    found = await rows_of(connection, _BEHIND, _range(database_id, partition))
    return tuple(
        Loser(consumer_id, name, messages, gap) for consumer_id, name, gap, messages in found
    )


def _range(database_id: int, partition: TablePartition) -> dict[str, int]:
    return {"database": database_id, "first": partition.first, "end": partition.end}


async def _give_up(
    connection: psycopg.AsyncConnection,
    database_id: int,
    partition: TablePartition,
    policy: Policy,
    size_bytes: int,
) -> None:
    """Move consumers that are not past `partition` behind it, with a gap: the log is full."""
    losers = await _behind(connection, database_id, partition)
    last = partition.end - 1
    for loser in losers:
        first = lost_since(loser.gap, max(1, partition.first))
        reason = (
            f"positions {first} to {last} were dropped from the log, which had reached its limit "
            f"(TRIGGERKIT_LOG_MAX_BYTES, {policy.max_bytes:,} bytes), before they were delivered"
        )
        async with connection.transaction():
            await mark_gap(connection, [loser.consumer_id], reason, kind="retention")
            await connection.execute(_SKIP, {"last": last, "consumers": [loser.consumer_id]})
        logger.error(
            "%s lost %d messages: %s; close the gap with: triggerkit backfill start %s",
            loser.name,
            loser.messages,
            reason,
            loser.name,
        )
    logger.info(
        "the log has %d bytes, more than %d: dropping positions up to %d",
        size_bytes,
        policy.max_bytes,
        last,
    )


async def delete_deliveries(
    connection: psycopg.AsyncConnection, database_id: int, retained_from: int
) -> None:
    """Forget deliveries of what the log has not any more, in short statements."""
    parameters = {
        "database": database_id,
        "partitions": PARTITIONS,
        "retained_from": retained_from,
        "rows": DELETE_ROWS,
    }
    while (await connection.execute(_OLD_DELIVERIES, parameters)).rowcount == DELETE_ROWS:
        pass
