"""Look at the topics and the groups as people do: newest events, and how far behind who reads is.

Each look takes the same few statements however much there is, and says where it did not count on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import psycopg
from psycopg.rows import class_row, dict_row

from triggerkit.configuration.table_name import table_text
from triggerkit.events.source import View
from triggerkit.events.topics import LOG_PARTITIONS

#: The newest positions of each log that are counted in.
COUNTED_POSITIONS: Final = 25_000

#: Events that a group is behind in a partition are counted up to this.
MOST_BEHIND: Final = 1_000

#: Instances and partitions that one look has at most.
MOST_INSTANCES, MOST_PLACES = 500, 400

_TOPICS = """
SELECT t.name, t.schema_name AS schema, t.table_name AS table, t.database_id,
    d.retained_from AS earliest, d.next_position AS latest, EXISTS (
        SELECT FROM triggerkit.consumers c
        WHERE c.database_id = d.id AND c.definition ->> 'via' = 'kafka') AS is_in_kafka
FROM triggerkit.topics t JOIN triggerkit.databases d ON d.id = t.database_id
WHERE t.enabled AND t.name > %s ORDER BY t.name LIMIT %s
"""

_NEWEST = """
SELECT d.id, e.schema_name, e.table_name, max(e.position), max(e.commit_at),
    count(*) FILTER (WHERE e.captured_at >= now() - interval '1 hour'),
    d.next_position - %(counted)s > d.retained_from
        AND min(min(e.captured_at)) OVER (PARTITION BY d.id) >= now() - interval '1 hour'
FROM triggerkit.databases d CROSS JOIN generate_series(0, %(last)s) p CROSS JOIN LATERAL (
    SELECT v.schema_name, v.table_name, v.position, v.commit_at, v.captured_at
    FROM triggerkit.events v
    WHERE v.database_id = d.id AND v.partition = p
      AND v.position >= d.next_position - %(counted)s
      AND v.consumer_id IS NULL AND v.fault IS NULL) e
WHERE d.id = ANY (%(databases)s) GROUP BY d.id, e.schema_name, e.table_name
"""

_GROUPS = """
SELECT id, name, source FROM triggerkit.event_groups
WHERE name > %(after)s AND (%(name)s::text IS NULL OR name = %(name)s)
  AND (source <> '') = %(kafka)s
ORDER BY name LIMIT %(limit)s
"""

#: Without those that were silent for too long.
_INSTANCES = """
SELECT group_id, name, topics, auto_commit, seen_at FROM triggerkit.event_instances
WHERE group_id = ANY (%s)
  AND seen_at + session_timeout_ms * interval '1 millisecond' > clock_timestamp()
ORDER BY group_id, name LIMIT %s
"""

_PLACES = """
SELECT o.group_id, o.topic, o.partition, o.owner, o.committed, o.first, l.behind,
    coalesce(o.committed, o.first) < greatest(d.retained_from, d.next_position - %(counted)s)
        OR l.behind > %(most)s AS is_more, t.name IS NOT NULL AS is_declared
FROM (SELECT * FROM triggerkit.event_offsets WHERE group_id = ANY (%(groups)s)
    ORDER BY group_id, topic, partition LIMIT %(limit)s) o
LEFT JOIN triggerkit.topics t ON t.name = o.topic AND t.enabled
LEFT JOIN triggerkit.databases d ON d.id = t.database_id
LEFT JOIN LATERAL (
    SELECT count(*) AS behind FROM (
        SELECT FROM triggerkit.events v
        WHERE v.database_id = d.id AND v.partition = o.partition
          AND v.position >= greatest(coalesce(o.committed, o.first), d.next_position - %(counted)s)
          AND v.schema_name = t.schema_name AND v.table_name = t.table_name
          AND v.consumer_id IS NULL AND v.fault IS NULL
        LIMIT %(most)s + 1) x) l ON t.name IS NOT NULL AND coalesce(o.committed, o.first) >= 0
    AND NOT %(kafka)s
ORDER BY o.group_id, o.topic, o.partition
"""


@dataclass(slots=True)
class SeenTopic:
    """A topic with its bounds, of which `latest` comes next; `in_hour` are its events of the last
    hour, or `is_more` than that, and the newest is among the last `COUNTED_POSITIONS`."""

    name: str
    schema: str
    table: str
    database_id: int
    earliest: int
    latest: int
    is_in_kafka: bool
    in_hour: int = 0
    is_more: bool = False
    newest: int | None = None
    newest_at: datetime | None = None
    partitions: int = LOG_PARTITIONS

    @property
    def table_name(self) -> str:
        """The table, with its schema."""
        return table_text(self.schema, self.table)


@dataclass(frozen=True, slots=True)
class SeenInstance:
    """An instance that was heard of within its session."""

    name: str
    topics: Sequence[str]
    auto_commit: bool
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class SeenPlace:
    """Where a group is in a partition: `behind` counts the topic's events that are not committed,
    None where it has not begun; `is_more`: there are more than were counted."""

    topic: str
    partition: int
    owner: str | None
    committed: int | None
    first: int | None
    behind: int | None
    is_more: bool | None
    is_declared: bool


@dataclass(slots=True)
class SeenGroup:
    """A group, its instances and where it is."""

    id: int
    name: str
    source: str = ""
    instances: list[SeenInstance] = field(default_factory=list)
    places: list[SeenPlace] = field(default_factory=list)

    @property
    def topics(self) -> list[str]:
        """The topics it reads, or read."""
        return list(dict.fromkeys(place.topic for place in self.places))

    @property
    def behind(self) -> int:
        """How many events it is behind in all partitions, as far as they were counted."""
        return sum(min(place.behind or 0, MOST_BEHIND) for place in self.places)

    @property
    def is_more(self) -> bool:
        """Whether it is farther behind than that."""
        return any(place.is_more for place in self.places)


async def look_at_topics(
    connection: psycopg.AsyncConnection, after: str, limit: int
) -> list[SeenTopic]:
    """Return the topics whose names come after `after`, at most `limit`."""
    async with connection.cursor(row_factory=class_row(SeenTopic)) as cursor:
        found = await (await cursor.execute(_TOPICS, [after, limit])).fetchall()
    if not found:
        return []
    parameters = {
        "counted": COUNTED_POSITIONS,
        "last": LOG_PARTITIONS - 1,
        "databases": list({topic.database_id for topic in found}),
    }
    rows = await (await connection.execute(_NEWEST, parameters)).fetchall()
    newest = {row[:3]: row[3:] for row in rows}
    for topic in found:
        counts = newest.get((topic.database_id, topic.schema, topic.table))
        if counts is not None:
            topic.newest, topic.newest_at, topic.in_hour, topic.is_more = counts
    return found


async def look_at_groups(
    connection: psycopg.AsyncConnection,
    after: str,
    limit: int,
    name: str | None = None,
    *,
    kafka: bool = False,
) -> list[SeenGroup]:
    """Return the groups whose names come after `after`, at most `limit`, or the one of a name: of
    the log, or those of `kafka`, of which `measure` tells how far behind they are."""
    parameters: Mapping[str, object] = {
        "after": after,
        "name": name,
        "limit": limit,
        "kafka": kafka,
    }
    async with connection.cursor(row_factory=class_row(SeenGroup)) as cursor:
        found = await (await cursor.execute(_GROUPS, parameters)).fetchall()
    groups = {group.id: group for group in found}
    if not groups:
        return []
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_INSTANCES, [list(groups), MOST_INSTANCES])
        for row in await cursor.fetchall():
            groups[row.pop("group_id")].instances.append(SeenInstance(**row))
        places = {
            "groups": list(groups),
            "limit": MOST_PLACES,
            "counted": COUNTED_POSITIONS,
            "most": MOST_BEHIND,
            "kafka": kafka,
        }
        await cursor.execute(_PLACES, places)
        for row in await cursor.fetchall():
            groups[row.pop("group_id")].places.append(SeenPlace(**row))
    return found


def measure(groups: Sequence[SeenGroup], view: View | None) -> None:
    """Tell of groups of Kafka how far behind they are, by the topics as they are there; None where
    they are not known."""
    for group in groups:
        group.places = [_measured(place, view) for place in group.places]


def place_topics(topics: Sequence[SeenTopic], view: View | None) -> None:
    """Give topics the partitions and offsets that Kafka has; none where they are not known."""
    for topic in topics:
        topic.earliest = topic.latest = 0
        count = 0 if view is None else view.partitions.get(topic.name, 0)
        if view is not None and count:
            bounds = [view.bounds_of(topic.name, number) for number in range(count)]
            topic.partitions = count
            topic.earliest = min(one.first for one in bounds)
            topic.latest = max(one.end for one in bounds)


def _measured(place: SeenPlace, view: View | None) -> SeenPlace:
    begun = place.first if place.committed is None else place.committed
    is_there = view is not None and place.partition < view.partitions.get(place.topic, 0)
    if view is None or not is_there or begun is None:
        return replace(place, behind=None, is_more=False)
    bounds = view.bounds_of(place.topic, place.partition)
    behind = max(0, bounds.end - max(begun, bounds.first))
    return replace(place, behind=behind, is_more=behind > MOST_BEHIND)
