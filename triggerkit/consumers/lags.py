"""How far consumers of a log on Kafka are behind: counted there, and kept in the state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import psycopg

from triggerkit.configuration.table_name import table_text
from triggerkit.kafkalog.stored import Dropped, Extent, StoredLog
from triggerkit.log.entry import Entry

#: Entries that are counted of each place where cursors are, of all places together, and of each at
#: least; what is behind them is estimated by positions.
COUNTED: Final = 4000
COUNTED_TOGETHER: Final = 20_000
LEAST_COUNTED: Final = 5

_BEHIND: Final = """
SELECT k.partition, k.position, c.id,
    ARRAY(SELECT jsonb_array_elements_text(c.definition -> 'tables'))
FROM triggerkit.consumers c JOIN triggerkit.cursors k ON k.consumer_id = c.id
JOIN triggerkit.log_extents e ON e.database_id = c.database_id AND e.partition = k.partition
WHERE c.database_id = %s AND k.position < e.last_position
"""

_STORE: Final = """
WITH n AS (
    SELECT * FROM unnest(%(consumers)s::int[], %(partitions)s::int[], %(positions)s::bigint[],
        %(messages)s::bigint[], %(oldest)s::timestamptz[])
        AS n (consumer_id, partition, position, messages, oldest_at)),
gone AS (
    DELETE FROM triggerkit.log_lags l USING triggerkit.consumers c
    WHERE c.id = l.consumer_id AND c.database_id = %(database)s AND NOT EXISTS (
        SELECT FROM n WHERE n.consumer_id = l.consumer_id AND n.partition = l.partition))
INSERT INTO triggerkit.log_lags
SELECT n.* FROM n JOIN triggerkit.consumers c ON c.id = n.consumer_id
ON CONFLICT (consumer_id, partition) DO UPDATE SET position = excluded.position,
    messages = excluded.messages, oldest_at = excluded.oldest_at
"""


class Counted(NamedTuple):
    """What was counted of a partition from a place on, by what it is of, up to a position."""

    entries: Mapping[str | int, int]
    oldest: Mapping[str | int, str]
    reached: int

    def of(
        self, consumer_id: int, tables: Iterable[str], after: int, last: int
    ) -> tuple[int, str | None]:
        """Return how many a consumer wants, and when the oldest of them was committed."""
        names: set[str | int] = {*tables, consumer_id}
        wanted = [name for name in names if name in self.entries]
        count = sum(self.entries[name] for name in wanted)
        if after < self.reached < last:
            count = round(count * (last - after) / (self.reached - after))
        return count, min((self.oldest[name] for name in wanted), default=None)


async def count_lags(
    state: psycopg.AsyncConnection,
    stored: StoredLog,
    database_id: int,
    extents: Mapping[int, Extent],
) -> None:
    """Count what consumers have not got up to the ends of the partitions, and keep it.

    Raises:
        KafkaFault: Kafka does not answer.
    """
    behind = await (await state.execute(_BEHIND, [database_id])).fetchall()
    places: dict[tuple[int, int], list[tuple[int, list[str]]]] = defaultdict(list)
    for partition, position, consumer_id, tables in behind:
        places[partition, position].append((consumer_id, tables))
    limit = max(LEAST_COUNTED, min(COUNTED, COUNTED_TOGETHER // max(1, len(places))))
    found: list[tuple[int, int, int, int, str | None]] = []
    for (partition, position), consumers in places.items():
        last = extents[partition].last or 0
        counted = await _count(stored, partition, position, last, limit)
        for consumer_id, tables in consumers:
            messages, oldest = counted.of(consumer_id, tables, position, last)
            found.append((consumer_id, partition, position, messages, oldest))
    await _store(state, database_id, found)


async def _count(
    stored: StoredLog, partition: int, position: int, last: int, limit: int
) -> Counted:
    entries: dict[str | int, int] = defaultdict(int)
    oldest: dict[str | int, str] = {}
    reached, looked_at = position, 0
    while reached < last and looked_at < limit:
        try:
            part = await stored.read(partition, reached, last, limit - looked_at)
        except Dropped as gone:
            reached = gone.first - 1
            continue
        for entry in part.entries:
            if (name := _name_of(entry)) is not None:
                entries[name] += 1
                oldest.setdefault(name, entry.commit_at)
        reached, looked_at = part.reached, looked_at + len(part.entries)
    return Counted(entries, oldest, reached)


def _name_of(entry: Entry) -> str | int | None:
    """Return what it is of: a table, or the consumer that a backfill read it for."""
    if entry.consumer_id is None:
        return table_text(entry.schema, entry.table)
    return None if entry.is_echo else entry.consumer_id


async def _store(
    state: psycopg.AsyncConnection,
    database_id: int,
    found: Sequence[tuple[int, int, int, int, str | None]],
) -> None:
    columns = [list(column) for column in zip(*found, strict=True)] or [[], [], [], [], []]
    names = ("consumers", "partitions", "positions", "messages", "oldest")
    await state.execute(_STORE, {"database": database_id, **dict(zip(names, columns, strict=True))})
