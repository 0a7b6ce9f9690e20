"""The newest events of a topic, for people to look at: what is long is cut where it is stored."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson
import psycopg
from psycopg.rows import class_row

from triggerkit.events.event import KINDS, key_of
from triggerkit.events.topics import LOG_PARTITIONS
from triggerkit.log.entry import partition_of

#: Positions that are looked through at once, in all partitions of the log.
LOOKED_THROUGH: Final = 25_000

#: Characters that are read of a row, and of what it was.
READ_CHARS: Final = 300

_TOPIC = """
SELECT t.database_id, t.schema_name, t.table_name, d.retained_from, d.next_position, d.name
FROM triggerkit.topics t JOIN triggerkit.databases d ON d.id = t.database_id
WHERE t.enabled AND t.name = %s
"""

_NEWEST = """
SELECT e.* FROM unnest(%(partitions)s::int[]) p CROSS JOIN LATERAL (
    SELECT v.position AS offset, v.partition, v.key AS logged_key, v.action, v.commit_at,
        left(v.record, %(chars)s) AS data,
        CASE v.action WHEN 'update' THEN left(v.changes, %(chars)s) END AS changes
    FROM triggerkit.events v
    WHERE v.database_id = %(database)s AND v.partition = p
      AND v.position < %(before)s AND v.position >= %(least)s
      AND v.schema_name = %(schema)s AND v.table_name = %(table)s
      AND v.consumer_id IS NULL AND v.fault IS NULL
      AND (%(actions)s::text[] IS NULL OR v.action = ANY (%(actions)s))
      AND (%(keys)s::text[] IS NULL OR v.key = ANY (%(keys)s))
    ORDER BY v.position DESC LIMIT %(limit)s) e
ORDER BY e.offset DESC LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """An event; `data` and `changes` have their first `READ_CHARS` characters."""

    offset: int
    partition: int
    logged_key: str
    action: str
    commit_at: datetime
    data: str | None
    changes: str | None

    @property
    def kind(self) -> str:
        """What the event is, such as `inserted`."""
        return KINDS[self.action]

    @property
    def key(self) -> str | None:
        """The message's key; None of a truncate."""
        return key_of(self.logged_key)[0]


@dataclass(frozen=True, slots=True)
class Newest:
    """Events, the newest first. `before` asks for what follows; `is_cut`: no farther was looked,
    though fewer were found than asked for."""

    events: list[SeenEvent]
    before: int | None
    is_cut: bool
    database: str


async def newest_events(
    connection: psycopg.AsyncConnection,
    topic: str,
    before: int | None,
    kind: str | None,
    key: str | None,
    limit: int,
) -> Newest | None:
    """Return the newest events of a topic from before the offset `before`, of a kind and a key
    where they are given; None where there is no such topic."""
    row = await (await connection.execute(_TOPIC, [topic])).fetchone()
    if row is None:
        return None
    database_id, schema, table, first, end, database = row
    end = end if before is None else min(before, end)
    keys = None if key is None else _logged(key)
    partitions = set(range(LOG_PARTITIONS))
    if keys is not None:
        partitions = {partition_of(schema, table, one) for one in keys}
    least = end - LOOKED_THROUGH * LOG_PARTITIONS // len(partitions)
    parameters = {
        "database": database_id,
        "schema": schema,
        "table": table,
        "partitions": sorted(partitions),
        "before": end,
        "least": least,
        "actions": None if kind is None else [one for one in KINDS if KINDS[one] == kind],
        "keys": None if keys is None else sorted(keys),
        "limit": limit + 1,
        "chars": READ_CHARS,
    }
    async with connection.cursor(row_factory=class_row(SeenEvent)) as cursor:
        found = await (await cursor.execute(_NEWEST, parameters)).fetchall()
    if len(found) > limit:
        return Newest(found[:limit], found[limit - 1].offset, False, database)
    is_cut = least > first
    return Newest(found, least if is_cut else None, is_cut, database)


def _logged(key: str) -> Collection[str]:
    """Return the keys of the log that a message's key, or its values with commas, may stand for."""
    return {key, orjson.dumps([key]).decode(), orjson.dumps(key.split(",")).decode()}
