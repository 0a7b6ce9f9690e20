"""An event as the messages that Kafka gets of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from triggerkit.events.event import Event

#: Bytes of a batch's own, and of the first record's attributes and its two differences from the
#: batch. Source: Kafka's protocol, "Record Batch".
_BATCH_BYTES: Final = 61
_RECORD_BYTES: Final = 3

# Named tuples made without their Python-level __new__ cost half.
_make = tuple.__new__


class Record(NamedTuple):
    """A message for Kafka. `offset` is the event's; one without a value, for a compacted topic,
    follows the event of a delete, whose offset it has. `key` is None of a truncate."""

    offset: int
    topic: str
    key: str | None
    value: bytes | None
    headers: tuple[tuple[str, str], ...]
    timestamp: int

    @property
    def order_key(self) -> tuple[str, str | None]:
        """What keeps records in order."""
        return self.topic, self.key

    @property
    def size_bytes(self) -> int:
        """The bytes of a batch that has nothing else, not compressed."""
        size = _RECORD_BYTES + _counted(len((self.key or "").encode()))
        size += _counted(len(self.value or b"")) + _varint(len(self.headers))
        size += sum(_counted(len(n.encode())) + _counted(len(v.encode())) for n, v in self.headers)
        return _BATCH_BYTES + _counted(size)


def _counted(length: int) -> int:
    """Return what bytes take with their number before them."""
    return _varint(length) + length


def _varint(number: int) -> int:
    """Return how many bytes a number has that is written seven bits a byte, with its sign."""
    return (max(1, (2 * number).bit_length()) + 6) // 7


def records_of(
    events: Iterable[Event], tombstoned: frozenset[str] = frozenset()
) -> Iterator[Record]:
    """Yield the messages of `events`, in order; topics in `tombstoned` get one without a value
    after each delete."""
    for event in events:
        topic, _, offset, timestamp, key, value, headers = event
        yield _make(Record, (offset, topic, key, value, headers, timestamp))
        if topic in tombstoned and dict(headers)["action"] == "delete":
            yield Record(offset, topic, key, None, headers, timestamp)
