"""Read messages of Kafka from given offsets on, by a few consumers that all requests share.

A consumer that stands where a request goes on is taken again: then what it fetched ahead is at
hand. They are of no group of Kafka's: each read says where it begins.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from heapq import merge
from time import monotonic
from typing import Any, Final, TypeVar

from pydantic import SecretStr

from triggerkit.errors import ConfigurationError
from triggerkit.events.kafka.client import admin_properties, confluent
from triggerkit.events.kafka.decode import message_from
from triggerkit.events.kafka.faults import (
    MAY_NOT_READ,
    PASSING,
    SILENT,
    KafkaFault,
    fault_of,
    more_telling,
    said,
)
from triggerkit.events.message import Message
from triggerkit.events.source import TopicPartition

#: Consumers of one process at most, and the seconds after which one that nobody uses is closed.
MOST_READERS: Final = 8
IDLE_S: Final = 30.0

#: Seconds until the first message has come that is there, and until another one of other
#: partitions follows it.
READ_S: Final = 5.0
FOLLOW_S: Final = 2.0

#: Seconds after which an offset that is not refused is none that is out of range.
REFUSED_S: Final = 1.0

#: Bytes of keys and values after which an answer ends.
ENOUGH_BYTES: Final = 1_000_000

#: What every consumer begins with. It fetches little ahead, since an answer has little; the
#: offsets are ours, and what a transaction has not committed is not read.
_PROPERTIES: Final[Mapping[str, str]] = {
    "group.id": "triggerkit-rest",
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "auto.offset.reset": "error",
    "enable.partition.eof": "true",
    "isolation.level": "read_committed",
    "allow.auto.create.topics": "false",
    "fetch.wait.max.ms": "100",
    "fetch.queue.backoff.ms": "10",
    "fetch.error.backoff.ms": "100",
    "fetch.max.bytes": "4194304",
    "queued.min.messages": "1000",
    "queued.max.messages.kbytes": "2048",
}

_END: Final = "_PARTITION_EOF"
_OUT_OF_RANGE: Final = ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE")
_GONE: Final = ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "UNKNOWN_TOPIC_ID")
_WAITED: Final = (*PASSING, "_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "REQUEST_TIMED_OUT")
_NOT_OURS: Final = "GROUP_AUTHORIZATION_FAILED"

T = TypeVar("T")


class OffsetGone(Exception):
    """The partition `key` does not have the offset any more."""

    def __init__(self, key: TopicPartition) -> None:
        super().__init__(*key)
        self.key = key


class TopicGone(Exception):
    """The topic was deleted, or the partition is no more."""


class Reader:
    """One consumer, and where it stands. Used by one thread at a time."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        module = confluent()
        self._module = module
        self._last_error: Any = None
        try:
            self._consumer = module.Consumer({**properties, "error_cb": self._failed})
        except module.KafkaException as error:
            problem = error.args[0].str()
            raise ConfigurationError(f"Kafka's client refuses a setting: {problem}") from None
        self.positions: dict[TopicPartition, int] = {}
        self.topics: set[str] = set()
        self.used_at = monotonic()

    def read(
        self, wanted: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], limit: int
    ) -> list[Message]:
        """Return messages from `wanted` on, at most `limit`, as there are before `ends`; its
        positions then are where to go on.

        Raises:
            OffsetGone, TopicGone, KafkaFault: nothing can be read; it is of no more use.
        """
        self._last_error = None
        if self.positions != wanted:
            self._assign(wanted)
        found: list[Message] = []
        size = 0
        left = {key for key, offset in wanted.items() if offset < ends[key]}
        until = last = monotonic() + READ_S
        while left and len(found) < limit and size < ENOUGH_BYTES:
            next_one = self._consumer.poll(max(0.0, until - monotonic()))
            # One without a value is false by itself.
            if next_one is None:
                if found:
                    break
                raise self._silence()
            key, at = self._passed(next_one)
            if key is None:
                continue
            if at is None:
                found.append(message_from(next_one))
                size += len(next_one.key() or b"") + len(next_one.value() or b"")
                at = next_one.offset() + 1
                until = min(last, monotonic() + FOLLOW_S)
            self.positions[key] = max(at, self.positions[key])
            if self.positions[key] >= ends[key]:
                left.discard(key)
        return found

    def has(self, key: TopicPartition, offset: int) -> bool:
        """Return whether Kafka does not refuse to read from there on; it is of no more use."""
        self._assign({key: offset})
        until = monotonic() + REFUSED_S
        try:
            while (next_one := self._consumer.poll(max(0.0, until - monotonic()))) is not None:
                if self._passed(next_one)[0] is not None:
                    break
        except (OffsetGone, TopicGone):
            return False
        return True

    def close(self) -> None:
        """Let go of the consumer."""
        self._consumer.close()

    def _assign(self, wanted: Mapping[TopicPartition, int]) -> None:
        # In another order each time: what is much in one partition keeps no other from its turn.
        places = random.sample(list(wanted.items()), len(wanted))
        try:
            self._consumer.assign([self._module.TopicPartition(*key, at) for key, at in places])
        except self._module.KafkaException as error:
            raise fault_of(error.args[0]) from None
        self.positions = dict(wanted)
        self.topics.update(topic for topic, _ in wanted)

    def _passed(self, next_one: Any) -> tuple[TopicPartition | None, int | None]:
        """Return the partition of what came, and where its end is if it is that and no message."""
        error = next_one.error()
        key = next_one.topic(), next_one.partition()
        if error is None:
            return key, None
        code = error.name()
        if code == _END:
            return key, next_one.offset()
        if code == _NOT_OURS:
            return None, None
        if code in _OUT_OF_RANGE:
            raise OffsetGone(key)
        if code in _GONE:
            raise TopicGone
        if code == "TOPIC_AUTHORIZATION_FAILED":
            raise KafkaFault(said(MAY_NOT_READ, "", key[0]))
        if code not in _WAITED:
            raise fault_of(error, key[0])
        self._failed(error)
        return None, None

    def _silence(self) -> KafkaFault:
        if self._last_error is not None:
            return fault_of(self._last_error)
        return KafkaFault(said(SILENT))

    def _failed(self, error: Any) -> None:
        if error.name() != _NOT_OURS:
            self._last_error = more_telling(self._last_error, error)


class Readers:
    """The consumers of one process. Used in one event loop."""

    def __init__(self, settings: Mapping[str, SecretStr]) -> None:
        self._properties = {**admin_properties(settings), **_PROPERTIES}
        self._places = asyncio.Semaphore(MOST_READERS)
        self._idle: list[Reader] = []
        self._threads = ThreadPoolExecutor(MOST_READERS, thread_name_prefix="kafka-reader")
        self._reads: set[asyncio.Task[Any]] = set()
        self._sweeping: asyncio.TimerHandle | None = None

    async def read(
        self, wanted: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], limit: int
    ) -> tuple[list[Message], dict[TopicPartition, int]]:
        """Return messages, and where to go on; see `Reader.read`.

        Raises:
            OffsetGone, TopicGone, KafkaFault: nothing can be read.
        """
        return await self._in_turn(lambda: self._read(wanted, ends, limit))

    async def has(self, key: TopicPartition, offset: int) -> bool:
        """Return whether one can read from `offset` on, which Kafka itself says; see `Reader.has`.

        Raises:
            KafkaFault: it does not answer.
        """
        return await self._in_turn(lambda: self._has(key, offset))

    async def close(self) -> None:
        """Let go of the consumers."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._reads:
            await asyncio.wait(self._reads, timeout=2 * READ_S)
        readers, self._idle = self._idle, []
        await asyncio.gather(*(self._in_thread(reader.close) for reader in readers))
        self._threads.shutdown(wait=False)

    async def _in_turn(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            async with asyncio.timeout(READ_S):
                await self._places.acquire()
        except TimeoutError:
            raise KafkaFault(said(SILENT)) from None
        # It goes on in its thread whatever becomes of who waits.
        task = asyncio.create_task(work(), name="kafka read")
        self._reads.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def _has(self, key: TopicPartition, offset: int) -> bool:
        reader = await self._taken({key: offset})
        try:
            return await self._in_thread(lambda: reader.has(key, offset))
        finally:
            await self._in_thread(reader.close)

    async def _read(
        self, wanted: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], limit: int
    ) -> tuple[list[Message], dict[TopicPartition, int]]:
        reader = await self._taken(wanted)
        try:
            found = await self._in_thread(lambda: reader.read(wanted, ends, limit))
        except BaseException:
            await self._in_thread(reader.close)
            raise
        following = dict(reader.positions)
        self._give_back(reader)
        return _in_order(found), following

    async def _taken(self, wanted: Mapping[TopicPartition, int]) -> Reader:
        for reader in self._idle:
            if reader.positions == wanted:
                self._idle.remove(reader)
                return reader
        if len(self._idle) + len(self._reads) > MOST_READERS:
            # One that does not know a topic yet would take a second to find its leaders.
            names = {topic for topic, _ in wanted}
            for reader in self._idle:
                if names <= reader.topics:
                    self._idle.remove(reader)
                    return reader
            # The one that was used least of late makes room.
            oldest = self._idle.pop(0)
            await self._in_thread(oldest.close)
        return await self._in_thread(lambda: Reader(self._properties))

    def _give_back(self, reader: Reader) -> None:
        reader.used_at = monotonic()
        self._idle.append(reader)
        if self._sweeping is None:
            loop = asyncio.get_running_loop()
            self._sweeping = loop.call_later(IDLE_S, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        oldest = monotonic() - IDLE_S
        for reader in [one for one in self._idle if one.used_at <= oldest]:
            self._idle.remove(reader)
            self._threads.submit(reader.close)
        if self._idle:
            loop = asyncio.get_running_loop()
            self._sweeping = loop.call_later(IDLE_S, self._sweep)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._reads.discard(task)
        self._places.release()
        if not task.cancelled():
            # Whoever waited was told, or is gone.
            task.exception()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _in_order(messages: Sequence[Message]) -> list[Message]:
    """Return messages about in the order of their times; those of a partition stay in its order."""
    parts: dict[TopicPartition, list[Message]] = {}
    for message in messages:
        parts.setdefault((message.topic, message.partition), []).append(message)
    some = [parts[key] for key in sorted(parts)]
    return list(merge(*some, key=lambda message: message.timestamp))
