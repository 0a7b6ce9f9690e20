"""The topics of the events as the embedded log has them: their bounds, and their messages.

An offset is a position of the log. A topic has some of them; what is between belongs to others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import psycopg

from triggerkit.errors import TriggerkitError, unknown_name
from triggerkit.events.event import Event, EventRenderer
from triggerkit.events.old_rows import lacks_row, old_rows
from triggerkit.events.topics import LOG_PARTITIONS, Topic, topics
from triggerkit.log.by_table import Part, read_parts
from triggerkit.log.entry import Entry
from triggerkit.log.search import CLOCK_SLACK, first_since

_BOUNDS = "SELECT id, retained_from, next_position FROM triggerkit.databases"

#: Messages of one answer at most.
MOST_MESSAGES = 500

TopicPartition = tuple[str, int]


class UnknownTopic(TriggerkitError):
    """There is no such topic, or it has no such partition."""


class OffsetOutOfRange(TriggerkitError):
    """The log does not have this offset, or not any more; the message says which it has."""


class Bounds(NamedTuple):
    """The first offset that is there, and the one that comes next."""

    first: int
    end: int

    def has(self, offset: int) -> bool:
        """Return whether one can read from `offset` on."""
        # Nothing was dropped from a log that begins at 1: what is before was never there.
        return offset <= self.end and (offset >= self.first or self.first <= 1)


class Read(NamedTuple):
    """Events in order, and where to go on in each partition that was asked for."""

    events: list[Event]
    following: dict[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class TopicLog:
    """The topics there are, as they were at one moment."""

    topics: Mapping[str, Topic]
    bounds: Mapping[int, Bounds]

    @classmethod
    async def look(cls, connection: psycopg.AsyncConnection) -> TopicLog:
        """Return the topics as they are now."""
        found = {topic.name: topic for topic in await topics(connection)}
        cursor = await connection.execute(_BOUNDS)
        return cls(found, {id_: Bounds(*row) for id_, *row in await cursor.fetchall()})

    @property
    def partitions(self) -> dict[str, int]:
        """Return how many partitions each topic has."""
        return dict.fromkeys(self.topics, LOG_PARTITIONS)

    def topic(self, name: str) -> Topic:
        """Return a topic.

        Raises:
            UnknownTopic: there is none of this name.
        """
        if name not in self.topics:
            raise UnknownTopic(unknown_name("topic", name, list(self.topics)))
        return self.topics[name]

    def bounds_of(self, name: str, partition: int) -> Bounds:
        """Return the bounds of a partition.

        Raises:
            UnknownTopic: there is no such topic or partition.
        """
        topic = self.topic(name)
        if partition >= LOG_PARTITIONS:
            raise UnknownTopic(f"{name} has the partitions 0 to {LOG_PARTITIONS - 1}")
        return self.bounds[topic.database_id]

    def require(self, name: str, partition: int, offset: int) -> None:
        """See that one can read from `offset` on.

        Raises:
            UnknownTopic: there is no such topic or partition.
            OffsetOutOfRange: one cannot.
        """
        bounds = self.bounds_of(name, partition)
        if not bounds.has(offset):
            raise OffsetOutOfRange(
                f"offset {offset} of {name}, partition {partition}, is out of range: the earliest "
                f"is {bounds.first}, the latest {bounds.end}"
            )

    async def read(
        self,
        connection: psycopg.AsyncConnection,
        wanted: Mapping[TopicPartition, int],
        limit: int = MOST_MESSAGES,
    ) -> Read:
        """Return the events from these offsets on, at most `limit`, in the order of commits."""
        events: list[Event] = []
        following = dict(wanted)
        for database_id, keys in self._by_database(wanted).items():
            if len(events) >= limit:
                break
            offsets = {key: wanted[key] for key in keys}
            read = await self._read(connection, database_id, offsets, limit - len(events))
            events += read.events
            following |= read.following
        return Read(events, following)

    async def _read(
        self,
        connection: psycopg.AsyncConnection,
        database_id: int,
        wanted: Mapping[TopicPartition, int],
        limit: int,
    ) -> Read:
        named = {key: self.topics[key[0]] for key in wanted}
        parts = [
            Part(key[1], topic.schema, topic.table, wanted[key]) for key, topic in named.items()
        ]
        head = self.bounds[database_id].end
        found = await read_parts(connection, database_id, parts, head, limit)
        renderer = EventRenderer(named.values())
        old = await self._old_rows(connection, database_id, renderer, found.entries)
        events = [renderer.event(entry, old.get(entry.position)) for entry in found.entries]
        return Read(events, {key: max(first, found.end) for key, first in wanted.items()})

    async def _old_rows(
        self,
        connection: psycopg.AsyncConnection,
        database_id: int,
        renderer: EventRenderer,
        entries: Sequence[Entry],
    ) -> dict[int, bytes]:
        """Return the rows before those deletes for which the WAL did not carry them."""
        lacking: dict[int, set[int]] = {}
        for entry in entries:
            topic = renderer.topic_of(entry)
            if topic is not None and lacks_row(entry, topic):
                lacking.setdefault(entry.partition, set()).add(entry.position)
        found: dict[int, bytes] = {}
        for partition, wanted in lacking.items():
            some = [entry for entry in entries if entry.partition == partition]
            found |= await old_rows(connection, database_id, some, wanted)
        return found

    def _by_database(self, wanted: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
        found: dict[int, list[TopicPartition]] = {}
        for key in wanted:
            found.setdefault(self.topics[key[0]].database_id, []).append(key)
        return found

    async def offset_at(
        self, connection: psycopg.AsyncConnection, key: TopicPartition, at: datetime
    ) -> int:
        """Return the first offset of a partition whose event is of `at` or later, else its end."""
        topic = self.topic(key[0])
        bounds = self.bounds_of(*key)
        # Transactions take their time shortly before they are in the order of the log.
        about = await first_since(
            connection, topic.database_id, at, bounds.first, bounds.end, CLOCK_SLACK
        )
        while about < bounds.end:
            read = await self.read(connection, {key: about})
            for event in read.events:
                if event.timestamp >= at.timestamp() * 1000:
                    return event.offset
            about = read.following[key]
        return bounds.end
