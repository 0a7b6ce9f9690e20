"""What one push carries: consecutive entries of a partition that its consumer wants."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from secrets import token_hex

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.render import Renderer, batch_body
from triggerkit.log.entry import Entry

#: A batch is closed before its body grows past this; one message alone may be larger.
MAX_BODY_BYTES = 4 * 1024 * 1024


def row_of(entry: Entry) -> str:
    """The row an entry is about, as text."""
    return f"{entry.schema}.{entry.table}:{entry.key}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries to deliver together. Every entry up to `last` is either here or not wanted.

    `waiting` are entries of rows that have a parked message: they are parked behind it.
    """

    entries: list[Entry]
    messages: list[bytes]
    last: int
    waiting: list[Entry] = field(default_factory=list)
    id: str = field(default_factory=lambda: f"msg_{token_hex(16)}")

    @property
    def first(self) -> int:
        """Position of the first entry, or of the last looked at when there is none."""
        return self.entries[0].position if self.entries else self.last

    def body(self, *, single: bool) -> bytes:
        """The request's body."""
        return batch_body(self.messages, single=single)


def collect(
    consumer: Consumer,
    renderer: Renderer,
    entries: Sequence[Entry],
    limit: int,
    parked_rows: Collection[str],
) -> Batch:
    """Take from `entries`, in order, at most `limit` that `consumer` wants."""
    wanted: list[Entry] = []
    messages: list[bytes] = []
    waiting: list[Entry] = []
    size_bytes = 0
    last = entries[-1].position
    for entry in entries:
        if not consumer.wants(entry):
            continue
        if parked_rows and row_of(entry) in parked_rows:
            waiting.append(entry)
            continue
        message = renderer.message(entry)
        if wanted and (len(wanted) >= limit or size_bytes + len(message) > MAX_BODY_BYTES):
            last = entry.position - 1
            break
        wanted.append(entry)
        messages.append(message)
        size_bytes += len(message)
    return Batch(wanted, messages, last, waiting)
