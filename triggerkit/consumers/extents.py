"""What a log on Kafka still has, as the state knows it: who is before that has a gap."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Final

import psycopg

from triggerkit.consumers.gap import mark_gap
from triggerkit.consumers.retention import delete_deliveries, lost_since
from triggerkit.kafkalog.stored import Extent, StoredLog
from triggerkit.log.entry import PARTITIONS
from triggerkit.state.channels import notify_consumers

logger = logging.getLogger(__name__)

_KNOWN: Final = """
SELECT partition, last_position FROM triggerkit.log_extents WHERE database_id = %s
"""

_NOTE: Final = """
INSERT INTO triggerkit.log_extents AS e (database_id, partition, first_position, last_position)
SELECT %s, n.partition, n.first, n.last
FROM unnest(%s::int[], %s::bigint[], %s::bigint[]) n (partition, first, last) ORDER BY n.partition
ON CONFLICT (database_id, partition) DO UPDATE SET looked_at = now(),
    first_position = greatest(e.first_position, excluded.first_position),
    last_position = greatest(e.last_position, excluded.last_position)
"""

#: Where all partitions have all.
_RETAINED: Final = """
UPDATE triggerkit.databases d SET retained_from = e.first
FROM (SELECT max(first_position) AS first FROM triggerkit.log_extents WHERE database_id = %(id)s) e
WHERE d.id = %(id)s AND d.retained_from < e.first
"""

_BEFORE: Final = """
SELECT c.id, c.name, min(k.position) + 1, max(e.first_position) - 1,
    (SELECT g.cause FROM triggerkit.gaps g
     WHERE g.consumer_id = c.id AND g.kind = 'retention' AND g.closed_at IS NULL)
FROM triggerkit.consumers c
JOIN triggerkit.cursors k ON k.consumer_id = c.id
JOIN triggerkit.log_extents e ON e.database_id = c.database_id AND e.partition = k.partition
WHERE c.database_id = %s AND k.position < e.first_position - 1
GROUP BY c.id ORDER BY c.name
"""

_SKIP: Final = """
WITH locked AS MATERIALIZED (
    SELECT k.consumer_id, k.partition, e.first_position - 1 AS position
    FROM triggerkit.cursors k
    JOIN triggerkit.consumers c ON c.id = k.consumer_id
    JOIN triggerkit.log_extents e ON e.database_id = c.database_id AND e.partition = k.partition
    WHERE k.consumer_id = ANY (%s) AND k.position < e.first_position - 1
    ORDER BY k.consumer_id, k.partition FOR NO KEY UPDATE OF k)
UPDATE triggerkit.cursors k SET position = l.position, batch_id = NULL, batch_last = NULL,
    attempt = 0, settled = '{}'
FROM locked l
WHERE k.consumer_id = l.consumer_id AND k.partition = l.partition AND k.position < l.position
"""

_OLDEST: Final = """
SELECT min(first_position) FROM triggerkit.log_extents WHERE database_id = %s HAVING count(*) = %s
"""


async def note_extents(
    state: psycopg.AsyncConnection,
    stored: StoredLog,
    database_id: int,
    partitions: Collection[int] = range(PARTITIONS),
) -> Mapping[int, Extent]:
    """Look at what partitions of the log have; consumers that were before it are moved there, and
    have a gap.

    Raises:
        KafkaFault: Kafka does not answer.
    """
    known: dict[int, int] = dict(await (await state.execute(_KNOWN, [database_id])).fetchall())
    extents = await stored.extents(partitions)
    firsts = [first_position(extent, known.get(number, 0)) for number, extent in extents.items()]
    lasts = [extent.last or 0 for extent in extents.values()]
    async with state.transaction():
        await state.execute(_NOTE, [database_id, list(extents), firsts, lasts])
        await state.execute(_RETAINED, {"id": database_id})
        before = await (await state.execute(_BEFORE, [database_id])).fetchall()
        for consumer_id, name, first, last, known_gap in before:
            reason = (
                f"positions {lost_since(known_gap, first)} to {last} were dropped from the log on "
                "Kafka, by what its topic keeps, before they were delivered"
            )
            await mark_gap(state, [consumer_id], reason, kind="retention")
            logger.error(
                "%s may have lost messages: %s; close the gap with: triggerkit backfill start %s",
                name,
                reason,
                name,
            )
        if before:
            await state.execute(_SKIP, [[consumer_id for consumer_id, *_ in before]])
            await notify_consumers(state)
    return extents


async def forget_deliveries(state: psycopg.AsyncConnection, database_id: int) -> None:
    """Delete deliveries of what no partition has any more."""
    row = await (await state.execute(_OLDEST, [database_id, PARTITIONS])).fetchone()
    if row is not None:
        await delete_deliveries(state, database_id, row[0])


def first_position(extent: Extent, known_last: int) -> int:
    """Return the first position of a partition that ended at `known_last` when it was looked at
    before; 1 if nothing of it was dropped."""
    is_made_anew = (
        known_last > 0
        and extent.low == 0
        and (extent.first > known_last if extent.first is not None else extent.high == 0)
    )
    if extent.low == 0 and not is_made_anew:
        return 1
    return extent.first if extent.first is not None else known_last + 1
