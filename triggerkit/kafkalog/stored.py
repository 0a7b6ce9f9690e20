"""Read entries of the log from Kafka by their positions, wherever they are in the topic.

Kafka finds messages by offsets, and positions ascend with them in each partition: an offset is
found by halving, and remembered for who reads on from there.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import SecretStr

from triggerkit.errors import ConfigurationError
from triggerkit.events.kafka.client import admin_properties, confluent
from triggerkit.events.kafka.faults import SILENT, KafkaFault, fault_of, more_telling, said
from triggerkit.kafkalog.message import Placed, placed
from triggerkit.log.entry import PARTITIONS, Entry, Subject
from triggerkit.log.reader import READ_BYTES

#: Seconds until a message, or the end, has come.
_ANSWER_S: Final = 10.0

#: Entries that are looked at by one read, wanted or not: others have a turn between.
LOOKED_AT: Final = 20_000

#: Times that something is read anew since what it led to was dropped meanwhile.
_ATTEMPTS: Final = 5

#: Places that are remembered.
_MOST_PLACES: Final = 4096

#: What passes by itself, and what says that the end is reached.
_END: Final = "_PARTITION_EOF"
_DROPPED: Final = "_AUTO_OFFSET_RESET"
_PASSING: Final = (
    "_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "REQUEST_TIMED_OUT", "LEADER_NOT_AVAILABLE",
    "NOT_LEADER_FOR_PARTITION", "UNKNOWN_LEADER_EPOCH", "FENCED_LEADER_EPOCH",
    "OFFSET_NOT_AVAILABLE",
)  # fmt: skip

_PROPERTIES: Final[Mapping[str, str]] = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "auto.offset.reset": "earliest",
    "enable.partition.eof": "true",
    "isolation.level": "read_committed",
    "allow.auto.create.topics": "false",
    "fetch.wait.max.ms": "50",
    "fetch.error.backoff.ms": "100",
    "fetch.queue.backoff.ms": "10",
    "fetch.message.max.bytes": "1048576",
    "queued.max.messages.kbytes": "8192",
}

T = TypeVar("T")


class End(NamedTuple):
    """Where a partition ends: the offset of what comes next, and the last entry, if it has one."""

    offset: int
    last: Placed | None


class Extent(NamedTuple):
    """What a partition has: its first offset and the one after its last, the positions there."""

    low: int
    high: int
    first: int | None
    last: int | None


class Dropped(Exception):
    """What comes next in a partition was dropped by the topic's retention, up to position
    `first`."""

    def __init__(self, partition: int, first: int) -> None:
        super().__init__(f"partition {partition} begins at position {first}")
        self.first = first


class _NotThere(Exception):
    """An offset is none that the partition has."""


class Part(NamedTuple):
    """Entries of a partition, and the position up to which there are no others."""

    entries: list[Entry]
    reached: int


def reader_properties(settings: Mapping[str, SecretStr], group: str) -> dict[str, str]:
    """Return the properties of who reads the log: what is not committed is not read."""
    return {**admin_properties(settings), **_PROPERTIES, "group.id": group}


class StoredLog:
    """Reads one log's topic, one read after the other, in a thread of its own."""

    def __init__(self, settings: Mapping[str, SecretStr], topic: str) -> None:
        self._module = confluent()
        self._refusal: type[Exception] = self._module.KafkaException
        self._last_error: Any = None
        properties = {**reader_properties(settings, topic), "auto.offset.reset": "error"}
        try:
            self._consumer = self._module.Consumer({**properties, "error_cb": self._failed})
        except self._refusal as error:
            problem = error.args[0].str()
            raise ConfigurationError(f"Kafka's client refuses a setting: {problem}") from None
        self._topic = topic
        #: Where the consumer stands, if it does.
        self._at: tuple[int, int] | None = None
        #: The offset behind the entry at a position of a partition.
        self._places: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka-log-reader")

    async def read(
        self,
        partition: int,
        after: int,
        until: int,
        limit: int,
        subjects: frozenset[Subject] | None = None,
    ) -> Part:
        """Return at most `limit` entries between two positions, the first one excluded: all, or of
        some subjects.

        Raises:
            Dropped: it has not any more what came after the first position.
            KafkaFault: Kafka does not give them.
            Unreadable: something else is in the topic.
        """
        return await self._in_thread(lambda: self._read(partition, after, until, limit, subjects))

    async def ends(self, partitions: Iterable[int] = range(PARTITIONS)) -> dict[int, End]:
        """Return the end of each partition, as far as it can be read: of an append that was
        committed a moment ago, not all partitions may show their part yet.

        Raises:
            KafkaFault: Kafka does not answer.
        """
        return await self._in_thread(lambda: {n: self._end_of(n) for n in partitions})

    async def extents(self, partitions: Iterable[int] = range(PARTITIONS)) -> dict[int, Extent]:
        """Return what each partition has, as far as it can be read.

        Raises:
            KafkaFault: Kafka does not answer.
        """
        return await self._in_thread(lambda: {n: self._extent_of(n) for n in partitions})

    async def close(self) -> None:
        """Let go of the consumer."""
        await self._in_thread(self._consumer.close)
        self._thread.shutdown(wait=False)

    def _read(
        self,
        partition: int,
        after: int,
        until: int,
        limit: int,
        subjects: frozenset[Subject] | None,
    ) -> Part:
        found: list[Entry] = []
        reached, size_bytes = after, 0
        placed_after = self._from(partition, self._offset_after(partition, after))
        for looked_at, (offset, _, entry) in enumerate(placed_after, start=1):
            if entry.position > until:
                return Part(found, until)
            reached = entry.position
            if subjects is None or entry.is_echo or entry.subject in subjects:
                found.append(entry)
                size_bytes += entry.size_bytes
            if len(found) >= limit or size_bytes >= READ_BYTES or looked_at >= LOOKED_AT:
                self._remember(partition, reached, offset + 1)
                return Part(found, reached)
        return Part(found, until)

    def _offset_after(self, partition: int, position: int) -> int:
        known = self._places.get((partition, position))
        if known is not None:
            return known
        begin, high = self._bounds(partition)
        low = begin
        while low < high:
            middle = (low + high) // 2
            found = next(self._from(partition, middle), None)
            if found is None or found.entry.position > position:
                high = middle
            else:
                low = found.offset + 1
        if begin and low == begin:
            first = next(self._from(partition, begin), None)
            if first is not None and position < first.entry.position - 1:
                raise Dropped(partition, first.entry.position)
        self._remember(partition, position, low)
        return low

    def _extent_of(self, partition: int) -> Extent:
        low, high = self._bounds(partition)
        first = next(self._from(partition, low), None) if low < high else None
        last = self._end_of(partition).last
        return Extent(
            low,
            high,
            None if first is None else first.entry.position,
            None if last is None else last.entry.position,
        )

    def _end_of(self, partition: int) -> End:
        low, high = self._bounds(partition)
        # What ends a transaction has an offset too, and so has what was never committed.
        step = 8
        while low < high:
            last = deque(self._from(partition, max(low, high - step)), maxlen=1)
            if last:
                return End(last[0].offset + 1, last[0])
            if high - step <= low:
                break
            step *= 16
        return End(low, None)

    def _remember(self, partition: int, position: int, offset: int) -> None:
        self._places[partition, position] = offset
        if len(self._places) > _MOST_PLACES:
            self._places.popitem(last=False)

    def _bounds(self, partition: int) -> tuple[int, int]:
        place = self._module.TopicPartition(self._topic, partition)
        until = monotonic() + _ANSWER_S
        while True:
            try:
                low, high = self._consumer.get_watermark_offsets(place, timeout=2.0)
                return int(low), int(high)
            except self._refusal as error:
                if monotonic() >= until or error.args[0].name() not in _PASSING:
                    raise fault_of(
                        more_telling(self._last_error, error.args[0]), self._topic
                    ) from None

    def _from(self, partition: int, offset: int) -> Iterator[Placed]:
        """Yield the entries of a partition from an offset on, up to its end."""
        if self._at != (partition, offset):
            self._consumer.assign([self._module.TopicPartition(self._topic, partition, offset)])
        self._at = None
        until = monotonic() + _ANSWER_S
        while True:
            message = self._consumer.poll(max(0.0, until - monotonic()))
            if message is None:
                if self._last_error is not None:
                    raise fault_of(self._last_error, self._topic)
                raise KafkaFault(said(SILENT))
            error = message.error()
            if error is None:
                at = message.offset()
                self._at = partition, at + 1
                self._last_error = None
                yield placed(message.value(), partition, at)
                self._at = None
                until = monotonic() + _ANSWER_S
            elif error.name() == _END:
                return
            elif error.name() == _DROPPED:
                raise _NotThere
            elif error.name() in _PASSING and monotonic() < until:
                self._failed(error)
            else:
                raise fault_of(error, self._topic)

    def _failed(self, error: Any) -> None:
        self._last_error = more_telling(self._last_error, error)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: self._where_it_is(work)
        )

    def _where_it_is(self, work: Callable[[], T]) -> T:
        """Do `work`, again where what it came upon was dropped in the meantime."""
        for _ in range(_ATTEMPTS):
            try:
                return work()
            except _NotThere:
                # What is remembered leads to where nothing is any more.
                self._places.clear()
        raise KafkaFault(said("the topic drops the log faster than it is read"))
