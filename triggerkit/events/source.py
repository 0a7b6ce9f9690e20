"""Where events are read from: what the embedded log and Kafka both answer."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import ClassVar, Final, NamedTuple, Protocol

import psycopg

from triggerkit.errors import TriggerkitError, unknown_name
from triggerkit.events.message import Message

#: Messages of one answer at most.
MOST_MESSAGES: Final = 500

TopicPartition = tuple[str, int]

#: Opens a connection to the state database, or takes one of a pool.
Connections = Callable[[], AbstractAsyncContextManager[psycopg.AsyncConnection]]


class UnknownTopic(TriggerkitError):
    """There is no such topic, or it has no such partition."""


class OffsetOutOfRange(TriggerkitError):
    """The topic does not have this offset, or not any more; the message says which it has."""


class Bounds(NamedTuple):
    """The first offset that is there, and the one that comes next."""

    first: int
    end: int

    def has(self, offset: int) -> bool:
        """Return whether one can read from `offset` on."""
        return self.first <= offset <= self.end


class Read(NamedTuple):
    """Messages, those of each partition in order, and where to go on in each partition that was
    asked for."""

    messages: Sequence[Message]
    following: dict[TopicPartition, int]


class View(ABC):
    """The topics there are, as they were at one moment."""

    __slots__ = ()

    #: Whether topics share their offsets, so that there may be many that are others'.
    is_shared: ClassVar[bool] = False

    @property
    @abstractmethod
    def partitions(self) -> Mapping[str, int]:
        """Return how many partitions each topic has."""

    @abstractmethod
    def id_of(self, name: str) -> str | None:
        """Return what tells a topic from an earlier one of its name; None where that is not known,
        as of one that is not there."""

    @abstractmethod
    def bounds_of(self, name: str, partition: int) -> Bounds:
        """Return the bounds of a partition of a topic that was looked at.

        Raises:
            UnknownTopic: there is no such topic or partition.
        """

    @abstractmethod
    async def read(self, wanted: Mapping[TopicPartition, int], limit: int = MOST_MESSAGES) -> Read:
        """Return the messages there are from these offsets on, at most `limit`.

        Raises:
            OffsetOutOfRange: one of them is not there any more.
        """

    @abstractmethod
    async def offset_at(self, key: TopicPartition, at: datetime) -> int:
        """Return the first offset of a partition whose message is of `at` or later, else its
        end."""

    @abstractmethod
    def written(
        self, keys: Collection[TopicPartition]
    ) -> AbstractAsyncContextManager[asyncio.Event]:
        """Enter to be told of what is written to `keys`: whatever is from then on sets the event,
        at times without anything new."""

    def require_topic(self, name: str) -> None:
        """See that there is a topic of this name.

        Raises:
            UnknownTopic: there is none.
        """
        if name not in self.partitions:
            raise UnknownTopic(unknown_name("topic", name, list(self.partitions)))

    def require_partition(self, name: str, partition: int) -> None:
        """See that there is this partition.

        Raises:
            UnknownTopic: there is no such topic or partition.
        """
        self.require_topic(name)
        count = self.partitions[name]
        if partition >= count:
            raise UnknownTopic(f"{name} has the partitions 0 to {count - 1}")

    async def has(self, name: str, partition: int, offset: int) -> bool:
        """Return whether one can read from `offset` on.

        Raises:
            UnknownTopic: there is no such topic or partition.
        """
        return self.bounds_of(name, partition).has(offset)

    async def require(self, name: str, partition: int, offset: int) -> None:
        """See that one can read from `offset` on.

        Raises:
            UnknownTopic: there is no such topic or partition.
            OffsetOutOfRange: one cannot.
        """
        if not await self.has(name, partition, offset):
            raise out_of_range(name, partition, offset, self.bounds_of(name, partition))


class Source(Protocol):
    """The embedded log, or Kafka."""

    @property
    def name(self) -> str:
        """What tells its groups from another's; known once it was `ready`."""
        ...

    async def ready(self) -> None:
        """See that it answers.

        Raises:
            KafkaFault: it does not.
        """
        ...

    async def look(
        self, topics: Collection[str] = (), connection: psycopg.AsyncConnection | None = None
    ) -> View:
        """Return the topics as they are now, with the bounds of `topics`; `connection` is one that
        the caller has already.

        Raises:
            KafkaFault: Kafka does not say.
        """
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


def out_of_range(name: str, partition: int, offset: int, bounds: Bounds) -> OffsetOutOfRange:
    """Return the error of an offset that cannot be read from."""
    return OffsetOutOfRange(
        f"offset {offset} of {name}, partition {partition}, is out of range: the earliest "
        f"is {bounds.first}, the latest {bounds.end}"
    )
