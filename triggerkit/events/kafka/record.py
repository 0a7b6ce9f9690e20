"""An event as the messages that Kafka gets of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from triggerkit.events.event import Event

#: Bytes of a batch's own and of a message's lengths and numbers, at most.
#: Source: Kafka's protocol, "Record Batch".
_BATCH_BYTES: Final = 61
_RECORD_BYTES: Final = 40

#: Bytes of the two lengths of a header.
_HEADER_BYTES: Final = 10


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
        """The bytes that it takes in a batch of its own, not compressed, at most."""
        size = _BATCH_BYTES + _RECORD_BYTES + len(self.value or b"")
        size += len((self.key or "").encode())
        return size + sum(_HEADER_BYTES + len(n) + len(v.encode()) for n, v in self.headers)


def records_of(
    events: Iterable[Event], tombstoned: frozenset[str] = frozenset()
) -> Iterator[Record]:
    """Yield the messages of `events`, in order; topics in `tombstoned` get one without a value
    after each delete."""
    for event in events:
        yield Record(
            event.offset, event.topic, event.key, event.value, event.headers, event.timestamp
        )
        if event.topic in tombstoned and dict(event.headers)["action"] == "delete":
            yield Record(event.offset, event.topic, event.key, None, event.headers, event.timestamp)
