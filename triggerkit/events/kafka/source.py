"""Kafka as what events are read from: the declared topics, as the cluster has them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime

import psycopg
from pydantic import SecretStr

from triggerkit.events.kafka.asking import Asking, SeenTopics
from triggerkit.events.kafka.reader import OffsetGone, Readers, TopicGone
from triggerkit.events.kafka.watch import Watch
from triggerkit.events.source import (
    MOST_MESSAGES,
    Bounds,
    Connections,
    Read,
    TopicPartition,
    View,
    out_of_range,
)
from triggerkit.events.topics import Topic
from triggerkit.events.topics import topics as declared_topics

#: The bounds of a topic that is not there yet, or not any more.
EMPTY = Bounds(0, 0)


class KafkaSource:
    """The topics of `[events]` in one cluster, which may have others: nobody reads those here."""

    def __init__(self, settings: Mapping[str, SecretStr], connections: Connections) -> None:
        self._asking = Asking(settings)
        self._readers = Readers(settings)
        self._watch = Watch(self._ends)
        self._connections = connections
        self._declared: Sequence[Topic] = ()
        self.name = ""

    async def ready(self) -> None:
        """See that it is reached.

        Raises:
            KafkaFault: it is not.
        """
        self.name = await self._asking.cluster()

    async def look(
        self, topics: Collection[str] = (), connection: psycopg.AsyncConnection | None = None
    ) -> KafkaView:
        """Return the topics as they are now, with the bounds of `topics`.

        Raises:
            KafkaFault: Kafka does not answer.
        """
        seen = await self._seen(connection)
        wanted = _keys(topics, seen.partitions)
        there = [key for key in wanted if key[0] not in seen.missing]
        bounds = dict.fromkeys(wanted, EMPTY) | await self._asking.bounds(there)
        return KafkaView(seen, bounds, self._asking, self._readers, self._watch)

    async def close(self) -> None:
        """Let go of the clients."""
        await self._watch.close()
        await self._readers.close()
        await self._asking.close()

    async def _seen(self, connection: psycopg.AsyncConnection | None) -> SeenTopics:
        if connection is None:
            async with self._connections() as opened:
                self._declared = await declared_topics(opened)
        else:
            self._declared = await declared_topics(connection)
        return await self._asking.topics(self._declared)

    async def _ends(self, keys: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        # Who waits looks at what is declared from time to time.
        seen = await self._asking.topics(self._declared)
        there = [key for key in keys if key[0] in seen.partitions and key[0] not in seen.missing]
        return await self._asking.ends(there)


@dataclass(frozen=True, slots=True)
class KafkaView(View):
    """The topics as they were at one moment."""

    seen: SeenTopics
    bounds: Mapping[TopicPartition, Bounds]
    asking: Asking
    readers: Readers
    watch: Watch

    @property
    def partitions(self) -> Mapping[str, int]:
        """Return how many partitions each topic has."""
        return self.seen.partitions

    def id_of(self, name: str) -> str | None:
        """Return the id that Kafka gave a topic."""
        return self.seen.ids.get(name)

    def require_topic(self, name: str) -> None:
        """See that there is a topic of this name, which may be read.

        Raises:
            UnknownTopic: there is none.
            KafkaFault: it may not be read.
        """
        if name in self.seen.faults:
            raise self.seen.faults[name]
        # A class with slots is made twice: `super` has the first.
        View.require_topic(self, name)

    def bounds_of(self, name: str, partition: int) -> Bounds:
        """Return the bounds of a partition of a topic that was looked at."""
        self.require_partition(name, partition)
        return self.bounds[name, partition]

    async def has(self, name: str, partition: int, offset: int) -> bool:
        """Return whether one can read from `offset` on.

        Raises:
            UnknownTopic, KafkaFault: see `require_topic`.
        """
        bounds = self.bounds_of(name, partition)
        if offset <= bounds.end or name in self.seen.missing:
            return bounds.has(offset)
        # Of a broker that was just started, or became the leader, the end may be behind.
        return await self.readers.has((name, partition), offset)

    def written(
        self, keys: Collection[TopicPartition]
    ) -> AbstractAsyncContextManager[asyncio.Event]:
        """Enter to be told of what is written to `keys`."""
        return self.watch.woken_by(keys)

    async def read(self, wanted: Mapping[TopicPartition, int], limit: int = MOST_MESSAGES) -> Read:
        """Return the messages there are from these offsets on, at most `limit`.

        Raises:
            OffsetOutOfRange: one of them is not there any more.
            KafkaFault: Kafka does not answer.
        """
        offsets = {key: offset for key, offset in wanted.items() if key in self.bounds}
        for key, offset in offsets.items():
            if offset < self.bounds[key].first:
                raise out_of_range(*key, offset, self.bounds[key])
        ends = {key: bounds.end for key, bounds in self.bounds.items()}
        if all(offset >= ends[key] for key, offset in offsets.items()):
            return Read([], offsets)
        there = {key: at for key, at in offsets.items() if key[0] not in self.seen.missing}
        try:
            messages, following = await self.readers.read(there, ends, limit)
        except OffsetGone as gone:
            bounds = (await self.asking.bounds([gone.key]))[gone.key]
            raise out_of_range(*gone.key, offsets[gone.key], bounds) from None
        except TopicGone:
            self.asking.forget()
            return Read([], offsets)
        return Read(messages, offsets | following)

    async def offset_at(self, key: TopicPartition, at: datetime) -> int:
        """Return the first offset of a partition whose message is of `at` or later, else its end.

        Raises:
            KafkaFault: Kafka does not answer.
        """
        bounds = self.bounds_of(*key)
        if key[0] in self.seen.missing:
            return bounds.end
        found = await self.asking.since(key, round(at.timestamp() * 1000))
        return bounds.end if found is None else found


def _keys(names: Collection[str], partitions: Mapping[str, int]) -> list[TopicPartition]:
    return [(name, number) for name in names for number in range(partitions.get(name, 0))]
