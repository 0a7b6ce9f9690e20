"""The newest changes of a log, each with how far the consumers of its table are with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
import psycopg
from psycopg.rows import class_row

from triggerkit.configuration.table_name import TableName
from triggerkit.log.entry import NOBODY, PARTITIONS, partition_of
from triggerkit.log.search import bounds_of

#: Positions that are looked through at once, in all partitions of the log or in one of them.
LOOKED_THROUGH = 25_000

_LIST = """
SELECT e.position, e.partition, e.table_name, e.key, e.action, e.commit_at, e.captured_at,
    e.consumer_id, e.backfill_id, e.fault
FROM unnest(%(partitions)s::int[]) p CROSS JOIN LATERAL (
    SELECT v.position, v.partition, triggerkit.table_text(v.schema_name, v.table_name)
        AS table_name, v.key, v.action, v.commit_at, v.captured_at, v.consumer_id, v.backfill_id,
        v.fault
    FROM triggerkit.events v
    WHERE v.database_id = %(database)s AND v.partition = p AND v.position < %(before)s
      AND v.position >= %(least)s
      AND v.consumer_id IS DISTINCT FROM %(nobody)s
      AND (%(schema)s::text IS NULL OR v.schema_name = %(schema)s)
      AND (%(table)s::text IS NULL OR v.table_name = %(table)s)
      AND (%(key)s::text IS NULL OR v.key = %(key)s)
      AND (%(action)s::text IS NULL OR v.action = %(action)s)
      AND (%(since)s::timestamptz IS NULL OR v.captured_at >= %(since)s)
    ORDER BY v.position DESC LIMIT %(limit)s) e
ORDER BY e.position DESC LIMIT %(limit)s
"""

#: When the first of what was looked through came into the log, and whether there is more before it.
_BEGINNING = """
SELECT min(e.captured_at), %(least)s > d.retained_from
FROM triggerkit.databases d CROSS JOIN unnest(%(partitions)s::int[]) p LEFT JOIN LATERAL (
    SELECT v.captured_at FROM triggerkit.events v
    WHERE v.database_id = d.id AND v.partition = p AND v.position >= %(least)s
    ORDER BY v.position LIMIT 1) e ON true
WHERE d.id = %(database)s GROUP BY d.id
"""

_FOLLOWERS = """
SELECT c.id, c.name, c.state,
    ARRAY(SELECT jsonb_array_elements_text(c.definition -> 'tables')) AS tables,
    (SELECT jsonb_object_agg(k.partition, k.position) FROM triggerkit.cursors k
     WHERE k.consumer_id = c.id) AS places
FROM triggerkit.consumers c WHERE c.database_id = %s ORDER BY c.name
"""

_PARKED = """
SELECT p.position, c.name, p.state FROM triggerkit.parked p
JOIN triggerkit.consumers c ON c.id = p.consumer_id
WHERE c.database_id = %(database)s AND p.partition = ANY (%(partitions)s)
  AND p.position = ANY (%(positions)s)
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The changes that are looked for: those that fit all that is given. `key` is the values of a
    primary key, separated by commas, and needs `table`."""

    table: str | None = None
    key: str | None = None
    action: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a consumer is with a change: `waiting`, `past` it (it was delivered, or is not
    wanted), or the state that it is parked in."""

    consumer: str
    state: str


@dataclass(slots=True)
class LoggedChange:
    """A change of the log without its row."""

    position: int
    partition: int
    table_name: str
    key: str
    action: str
    commit_at: datetime
    captured_at: datetime
    consumer_id: int | None
    backfill_id: int | None
    fault: str | None
    consumers: list[Standing] = field(default_factory=list)

    @property
    def key_text(self) -> str:
        """Return the values of the key, as they are written in a filter."""
        return ",".join(map(str, orjson.loads(self.key)))


@dataclass(frozen=True, slots=True)
class _Follower:
    id: int
    name: str
    state: str
    tables: Sequence[str]
    places: Mapping[str, int] | None

    def standing(self, change: LoggedChange) -> Standing | None:
        """Return how far it is with a change; None if it follows another table."""
        if change.consumer_id is not None and change.consumer_id != self.id:
            return None
        if change.consumer_id is None and change.table_name not in self.tables:
            return None
        places = self.places or {}
        place = places.get(str(change.partition), places.get("-1", 0))
        if change.position <= place:
            return Standing(self.name, "past")
        return Standing(self.name, "waiting" if self.state == "active" else self.state)


@dataclass(frozen=True, slots=True)
class FoundChanges:
    """A part of a list. `before` asks for what follows. With `back_to` it was looked no farther,
    since it takes long: what fits may come before that."""

    changes: Sequence[LoggedChange] = ()
    before: int | None = None
    back_to: datetime | None = None


async def latest_changes(
    connection: psycopg.AsyncConnection,
    database_id: int,
    end: int,
    wanted: Wanted,
    *,
    limit: int = 50,
) -> FoundChanges:
    """Return the newest changes that fit, of those before the position `end`.

    Raises:
        TriggerkitError: the log is on Kafka.
    """
    await bounds_of(connection, database_id)
    given = _where(wanted)
    # A row's changes are in one partition, which has as many in more positions.
    looked = LOOKED_THROUGH * PARTITIONS // len(given["partitions"])
    parameters = {
        **given,
        "database": database_id,
        "before": end,
        "least": end - looked,
        "nobody": NOBODY,
        "limit": limit + 1,
    }
    async with connection.cursor(row_factory=class_row(LoggedChange)) as cursor:
        found = await (await cursor.execute(_LIST, parameters)).fetchall()
    await _stand(connection, database_id, found[:limit])
    if len(found) > limit:
        return FoundChanges(found[:limit], found[limit - 1].position)
    row = await (await connection.execute(_BEGINNING, parameters)).fetchone()
    if row is None or not row[1] or (wanted.since and row[0] and row[0] < wanted.since):
        return FoundChanges(found)
    return FoundChanges(found, end - looked, row[0])


async def _stand(
    connection: psycopg.AsyncConnection, database_id: int, changes: Sequence[LoggedChange]
) -> None:
    """Set how far the consumers are with each change."""
    async with connection.cursor(row_factory=class_row(_Follower)) as cursor:
        followers = await (await cursor.execute(_FOLLOWERS, [database_id])).fetchall()
    looked_for = {
        "database": database_id,
        "partitions": [-1, *range(PARTITIONS)],
        "positions": [change.position for change in changes],
    }
    rows = await (await connection.execute(_PARKED, looked_for)).fetchall()
    parked = {(position, name): state for position, name, state in rows}
    for change in changes:
        for follower in followers:
            standing = follower.standing(change)
            if standing is not None:
                state = parked.get((change.position, follower.name), standing.state)
                change.consumers.append(Standing(follower.name, state))


def _where(wanted: Wanted) -> dict[str, Any]:
    values: dict[str, Any] = {
        "schema": None,
        "table": None,
        "key": None,
        "partitions": list(range(PARTITIONS)),
        "action": wanted.action,
        "since": wanted.since,
    }
    if wanted.table is not None:
        values["schema"], values["table"] = TableName.parse(wanted.table)
        if wanted.key is not None:
            key = orjson.dumps(wanted.key.split(",")).decode()
            values["key"] = key
            values["partitions"] = [partition_of(values["schema"], values["table"], key)]
    return values
