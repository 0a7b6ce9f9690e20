"""Collect batches: consecutive entries of a partition that its consumer wants."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from secrets import token_hex
from typing import NamedTuple

from triggerkit.consumers.calls.functions import Outcome, verdict_of
from triggerkit.consumers.render import batch_body
from triggerkit.consumers.selection import WANTED, Faulty, Selection, Verdict
from triggerkit.log.entry import Entry

#: A batch is closed before its body grows past this; one message alone may be larger.
MAX_BODY_BYTES = 4 * 1024 * 1024

#: A batch is closed when so many messages were set aside beside it: they are stored with it.
MAX_HELD = 1000


class EntryToPark(NamedTuple):
    """An entry that is set aside, to be parked: for a fault, or behind another of its key."""

    entry: Entry
    key: str
    fault: Faulty | None


@dataclass(slots=True)
class Batch:
    """Entries to deliver together. Every entry up to `last` is here, in `held`, or not wanted.

    `selection` is what they were collected by.
    """

    selection: Selection
    entries: list[Entry] = field(default_factory=list)
    #: The messages of `entries`; where none are sent, their records, by which a batch is bounded.
    messages: list[bytes] = field(default_factory=list)
    #: What is sent for `messages` where the consumer has a transform; else nothing.
    transformed: list[bytes] = field(default_factory=list)
    held: list[EntryToPark] = field(default_factory=list)
    last: int = 0
    size_bytes: int = 0
    #: Whether nothing more goes into it.
    is_full: bool = False
    #: Where it ends at a truncate or its echo: that is behind it.
    barrier: Entry | None = None
    #: What a receiver knows it by; empty until it is about to be sent.
    id: str = ""

    @property
    def first(self) -> int:
        """Position of the first entry, or of the last looked at when there is none."""
        return self.entries[0].position if self.entries else self.last

    def message(self, number: int) -> bytes:
        """Return the message of one of `entries`."""
        if self.selection.sends_messages:
            return self.messages[number]
        return self.selection.message(self.entries[number])

    def body(self, *, single: bool) -> bytes:
        """Return the request's body; nothing where no messages are sent."""
        if not self.selection.sends_messages:
            return b""
        return batch_body(self.transformed or self.messages, single=single)


def _judged(selection: Selection, outcomes: Mapping[int, Outcome], entry: Entry) -> Verdict:
    verdict = selection.judge(entry)
    if verdict != WANTED:
        return verdict
    return verdict_of(outcomes[entry.position])


def _record(entry: Entry) -> bytes:
    return entry.record or b""


def new_id(body: bytes = b"", identity: str | None = None) -> str:
    """Return an id for a batch, by which no other body is sent; with an `identity`, of what is sent
    alone, it is the same each time."""
    chosen = token_hex(12)
    if identity is not None:
        chosen = blake2b(identity.encode(), digest_size=12).hexdigest()
    return f"msg_{chosen}{_digest(body)}"


def is_id_of(batch_id: str, body: bytes) -> bool:
    """Return whether `body` is what was sent by `batch_id`. Ids of releases that did not tell it
    are taken to be."""
    return len(batch_id) < len(new_id()) or batch_id.endswith(_digest(body))


def _digest(body: bytes) -> str:
    return blake2b(body, digest_size=10).hexdigest()


def collect(
    selection: Selection,
    entries: Sequence[Entry],
    limit: int,
    parked_keys: Collection[str],
    onto: Batch | None = None,
    *,
    held_before: Collection[int] = (),
    outcomes: Mapping[int, Outcome] | None = None,
    stops: bool = True,
) -> Batch:
    """Take from `entries`, in order, what goes into a batch of at most `limit` messages.

    `onto` is a batch to be filled up. Entries at the positions `held_before` are set aside, as
    they were when the batch was sent before. `outcomes` is what the consumer's functions made of
    the entries, by position, where they were called in another process. With `stops`, the batch
    ends before a truncate, or its echo.
    """
    batch = Batch(selection) if onto is None else onto
    wanted, messages, held = batch.entries, batch.messages, batch.held
    transforms = outcomes is not None
    judge = selection.judge if outcomes is None else partial(_judged, selection, outcomes)
    follows, filters = selection.follows, selection.filters or transforms
    may_hold = bool(parked_keys or held_before)
    render = selection.message if selection.sends_messages else _record
    key_of = selection.key_of
    held_keys = {item.key for item in held}
    outgoing = batch.transformed if transforms else []
    size_bytes = batch.size_bytes
    batch.last = entries[-1].position
    for entry in entries:
        if entry.action == "truncate" and stops and selection.stops_at(entry):
            batch.last = entry.position - 1
            batch.barrier = entry
            batch.is_full = True
            break
        if not follows(entry):
            continue
        # Most consumers have no filter: a call for every entry is what they need not pay.
        is_wanted, fault = judge(entry) if filters or entry.fault is not None else WANTED
        if not is_wanted:
            continue
        if may_hold or held_keys or fault is not None:
            key = key_of(entry)
            is_behind = key in parked_keys or key in held_keys or entry.position in held_before
            if is_behind or fault is not None:
                held.append(EntryToPark(entry, key, fault))
                held_keys.add(key)
                continue
        message = sent = render(entry)
        if outcomes is not None:
            made = outcomes[entry.position]
            assert isinstance(made, bytes)  # what is not wanted, or faulty, is not here any more
            sent = made
        if wanted and (len(wanted) >= limit or size_bytes + len(sent) > MAX_BODY_BYTES):
            batch.last = entry.position - 1
            batch.is_full = True
            break
        wanted.append(entry)
        messages.append(message)
        outgoing.append(sent)
        size_bytes += len(sent)
    batch.size_bytes = size_bytes
    batch.is_full = batch.is_full or len(wanted) >= limit or len(held) >= MAX_HELD
    return batch
