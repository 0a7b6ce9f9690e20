"""The topics of the events as the embedded log has them: their bounds, and their messages.

An offset is a position of the log. A topic has some of them; what is between belongs to others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final

import psycopg

from triggerkit.events.event import Event, EventRenderer
from triggerkit.events.message import message_of
from triggerkit.events.old_rows import lacks_row, old_rows
from triggerkit.events.source import (
    MOST_MESSAGES,
    Bounds,
    Connections,
    Read,
    TopicPartition,
    View,
)
from triggerkit.events.topics import LOG_PARTITIONS, Topic, topics
from triggerkit.log.by_table import Part, read_parts
from triggerkit.log.entry import Entry
from triggerkit.log.search import CLOCK_SLACK, first_since

_BOUNDS = "SELECT id, retained_from, next_position FROM triggerkit.databases"

#: Enters what sets an event when one of names such as "database 1" is notified of.
WokenBy = Callable[[Sequence[str]], AbstractAsyncContextManager[asyncio.Event]]

#: The name of the log among the sources: its groups are those without another's.
LOG_NAME: Final = ""


class LogBounds(Bounds):
    """The bounds of the log, which begins at 1."""

    __slots__ = ()

    def has(self, offset: int) -> bool:
        """Return whether one can read from `offset` on."""
        # Nothing was dropped from a log that begins at 1: what is before was never there.
        return offset <= self.end and (offset >= self.first or self.first <= 1)


class LogSource:
    """The embedded log; who waits for it is `woken_by` the stream."""

    name = LOG_NAME

    def __init__(self, connections: Connections, woken_by: WokenBy) -> None:
        self._connections = connections
        self._woken_by = woken_by

    async def ready(self) -> None:
        """Return: what does not answer is the state database, which each request asks."""

    async def look(
        self,
        topics: Collection[str] = (),
        connection: psycopg.AsyncConnection | None = None,
    ) -> TopicLog:
        """Return the topics as they are now."""
        if connection is None:
            async with self._connections() as opened:
                return await self.look(topics, opened)
        return await TopicLog.look(connection, self._connections, self._woken_by)

    async def close(self) -> None:
        """Return: the connections are the caller's."""


@dataclass(frozen=True, slots=True)
class TopicLog(View):
    """The topics there are, as they were at one moment."""

    is_shared: ClassVar[bool] = True

    topics: Mapping[str, Topic]
    bounds: Mapping[int, LogBounds]
    connections: Connections
    woken_by: WokenBy

    @classmethod
    async def look(
        cls, connection: psycopg.AsyncConnection, connections: Connections, woken_by: WokenBy
    ) -> TopicLog:
        """Return the topics as they are now."""
        found = {topic.name: topic for topic in await topics(connection)}
        cursor = await connection.execute(_BOUNDS)
        bounds = {id_: LogBounds(*row) for id_, *row in await cursor.fetchall()}
        return cls(found, bounds, connections, woken_by)

    @property
    def partitions(self) -> Mapping[str, int]:
        """Return how many partitions each topic has."""
        return dict.fromkeys(self.topics, LOG_PARTITIONS)

    def id_of(self, name: str) -> str | None:
        """Return what tells a topic from an earlier one of its name: its table."""
        topic = self.topics.get(name)
        return None if topic is None else f"{topic.database_id}.{topic.table_name}"

    def bounds_of(self, name: str, partition: int) -> Bounds:
        """Return the bounds of a partition."""
        self.require_partition(name, partition)
        return self.bounds[self.topics[name].database_id]

    def written(
        self, keys: Collection[TopicPartition]
    ) -> AbstractAsyncContextManager[asyncio.Event]:
        """Enter to be told of what is written to the databases of `keys`."""
        return self.woken_by(sorted({self._database_of(key) for key in keys}))

    async def read(self, wanted: Mapping[TopicPartition, int], limit: int = MOST_MESSAGES) -> Read:
        """Return the messages from these offsets on, at most `limit`, in the order of commits."""
        events: list[Event] = []
        wanted = {key: offset for key, offset in wanted.items() if key[0] in self.topics}
        following = dict(wanted)
        async with self.connections() as connection:
            for database_id, keys in self._by_database(wanted).items():
                if len(events) >= limit:
                    break
                offsets = {key: wanted[key] for key in keys}
                read = await self._read(connection, database_id, offsets, limit - len(events))
                events += read[0]
                following |= read[1]
        return Read([message_of(event) for event in events], following)

    async def _read(
        self,
        connection: psycopg.AsyncConnection,
        database_id: int,
        wanted: Mapping[TopicPartition, int],
        limit: int,
    ) -> tuple[list[Event], dict[TopicPartition, int]]:
        named = {key: self.topics[key[0]] for key in wanted}
        parts = [
            Part(key[1], topic.schema, topic.table, wanted[key]) for key, topic in named.items()
        ]
        head = self.bounds[database_id].end
        found = await read_parts(connection, database_id, parts, head, limit)
        renderer = EventRenderer(named.values())
        old = await self._old_rows(connection, database_id, renderer, found.entries)
        events = [renderer.event(entry, old.get(entry.position)) for entry in found.entries]
        return events, {key: max(first, found.end) for key, first in wanted.items()}

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

    def _database_of(self, key: TopicPartition) -> str:
        return f"database {self.topics[key[0]].database_id}"

    async def offset_at(self, key: TopicPartition, at: datetime) -> int:
        """Return the first offset of a partition whose event is of `at` or later, else its end."""
        bounds = self.bounds_of(*key)
        database_id = self.topics[key[0]].database_id
        # Transactions take their time shortly before they are in the order of the log.
        async with self.connections() as connection:
            about = await first_since(
                connection, database_id, at, bounds.first, bounds.end, CLOCK_SLACK
            )
        while about < bounds.end:
            read = await self.read({key: about})
            for message in read.messages:
                if message.timestamp >= at.timestamp() * 1000:
                    return message.offset
            about = read.following[key]
        return bounds.end
