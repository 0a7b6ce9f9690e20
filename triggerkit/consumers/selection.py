"""From an entry of the log to the message a consumer gets, or to the reason why it gets none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import orjson

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.filters.filter import RetypedColumn, all_of
from triggerkit.consumers.render import Renderer, RowRenderer
from triggerkit.consumers.shared_parts import Parts, parts_of
from triggerkit.log.entry import NOBODY, Entry, Subject
from triggerkit.log.json_object import read_object, split_object
from triggerkit.message import UNCHANGED, Change, Envelope

_decode = msgspec.json.Decoder(Envelope).decode


class Faulty(NamedTuple):
    """A message that cannot be delivered: it is parked for this reason.

    Not `is_retryable` when the log itself lacks what would be sent.
    """

    reason: str
    is_retryable: bool = True


class Verdict(NamedTuple):
    """The decision whether a consumer gets a message. One with a fault is wanted, and cannot be
    delivered."""

    is_wanted: bool
    fault: Faulty | None = None


WANTED = Verdict(True)
UNWANTED = Verdict(False)


class Selection:
    """Select what one consumer gets of the log: its filters and the form of its messages.

    Its functions are called in another process, for what is selected here.
    """

    def __init__(self, consumer: Consumer, parts_of: Callable[[Entry], Parts] = parts_of) -> None:
        """`parts_of` gives what an entry's messages have in common for all consumers."""
        definition = consumer.definition
        self._renderer = Renderer(consumer, parts_of)
        self._test = all_of(definition.filters)
        #: Whether functions decide what remains, and make what is sent of it.
        self.leaves_calls = bool(definition.filter or definition.transform)
        #: Whether messages are what is sent; for Kafka, events are made of entries instead.
        self.sends_messages = not definition.is_kafka
        #: Whether events are sent in place of messages.
        self.sends_events = definition.body == "event"
        #: Whether not all that the consumer follows is wanted.
        self.filters = self._test is not None
        #: Whether an entry is for the consumer, its filters left aside.
        self.follows: Callable[[Entry], bool] = consumer.wants
        if definition.actions is None and definition.when_changed is None:
            self.follows = _among(consumer.subjects)
        self._lacks_group = consumer.lacks_group
        #: Whether the consumer waits at an entry, for a truncate.
        self.stops_at = consumer.stops_at
        #: What keeps messages in order.
        self.key_of = consumer.key_of
        #: The message of an entry, before a transform.
        self.message = self._renderer.message
        #: Renders rows as they are stored; None when each has to be looked at.
        self.rows: RowRenderer | None = None
        if consumer.is_by_kind and not self.leaves_calls:
            self.rows = RowRenderer(consumer, self._renderer)

    def wants(self, entry: Entry) -> Verdict:
        """Return whether the consumer gets `entry`."""
        return self.judge(entry) if self.follows(entry) else UNWANTED

    def judge(self, entry: Entry) -> Verdict:
        """Return whether an entry that the consumer follows passes its filters, and can be
        delivered."""
        if entry.fault is not None:
            return Verdict(True, Faulty(entry.fault, is_retryable=False))
        if entry.action == "truncate":
            return WANTED
        try:
            if self._test is not None and not self._test(_record(entry.record)):
                return UNWANTED
        except BaseException as error:
            return Verdict(True, _raised("filter", error))
        lack = self._lacks_group(entry)
        return WANTED if lack is None else Verdict(True, Faulty(lack))

    def passes(self, message: bytes) -> Verdict:
        """Return whether a message that was parked passes the filters as they are now."""
        if self._test is None:
            return WANTED
        try:
            members = split_object(message)
            if members["action"] == b'"truncate"':
                return WANTED
            return WANTED if self._test(_record(members["record"])) else UNWANTED
        except BaseException as error:
            return Verdict(True, _raised("filter", error))


def _among(subjects: frozenset[Subject]) -> Callable[[Entry], bool]:
    """Return what says the same as `Consumer.wants` where an entry's subject is all that counts."""

    def follows(entry: Entry) -> bool:
        consumer_id = entry.consumer_id
        subject = consumer_id or (entry.schema, entry.table)
        return subject in subjects and consumer_id != NOBODY

    return follows


def filtered(function: Callable[[Any], Any], message: bytes) -> bool | Faulty:
    """Return whether a filter wants `message`."""
    try:
        return bool(function(change_of(message)))
    except BaseException as error:
        return _raised("filter", error)


def transformed(function: Callable[[Any], Any], message: bytes) -> bytes | Faulty:
    """Return what a transform makes of `message`."""
    try:
        return orjson.dumps(function(change_of(message)))
    except BaseException as error:
        return _raised("transform", error)


class _UnreadableValue(Exception):
    """A value of the message is JSON that Postgres takes and Python does not."""


def change_of(message: bytes) -> Change[Any]:
    """Return a message as a consumer's functions get it: its record is a dict."""
    try:
        envelope = _decode(message)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _UnreadableValue from error
    record = envelope.record
    if record is not None and envelope.metadata.unchanged:
        record = {**record, **dict.fromkeys(envelope.metadata.unchanged, UNCHANGED)}
    return Change(record, envelope.changes, envelope.action, envelope.metadata)


def _raised(what: str, error: BaseException) -> Faulty:
    """Blame the message for what its consumer's function raised, `SystemExit` included: nothing
    that is called with one row ends the stream of all others."""
    if isinstance(error, _UnreadableValue):
        return Faulty(f"the {what} cannot be called: a value is JSON that Python does not read")
    if isinstance(error, RetypedColumn):
        return Faulty(str(error))
    return Faulty(f"the {what} raised {type(error).__name__}")


def _record(record: bytes | None) -> dict[str, Any]:
    return {} if record in (None, b"null") else read_object(record)
