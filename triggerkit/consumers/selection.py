"""From an entry of the log to the message a consumer gets, or to the reason why it gets none."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import orjson

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.filter import all_of
from triggerkit.consumers.functions import load_function
from triggerkit.consumers.render import Renderer, RowRenderer
from triggerkit.log.entry import Entry
from triggerkit.message import UNCHANGED, Change, Envelope

_decode = msgspec.json.Decoder(Envelope).decode


class Faulty(NamedTuple):
    """A message that cannot be delivered: it is parked for this reason.

    Not `is_retryable` when the log itself lacks what would be sent.
    """

    reason: str
    is_retryable: bool = True


class Selection:
    """Select what one consumer gets of the log: its filters, its functions and the form of its
    messages.

    Raises:
        ConfigurationError: a function of the consumer cannot be loaded.
    """

    def __init__(self, consumer: Consumer) -> None:
        definition = consumer.definition
        self._renderer = Renderer(consumer)
        self._test = all_of(definition.filters)
        self._filter = definition.filter and load_function(definition.filter)
        self._transform = definition.transform and load_function(definition.transform)
        #: Whether not all that the consumer follows is wanted.
        self.filters = self._test is not None or bool(self._filter)
        #: Whether what is sent is another than the message.
        self.transforms = bool(self._transform)
        #: Whether an entry is for the consumer, its filters left aside.
        self.follows = consumer.wants
        #: What keeps messages in order.
        self.key_of = consumer.key_of
        #: The message of an entry, before a transform.
        self.message = self._renderer.message
        #: Renders rows as they are stored; None when each has to be looked at.
        self.rows: RowRenderer | None = None
        is_looked_at = self.filters or self.transforms or definition.when_changed is not None
        if not is_looked_at and definition.group_by is None:
            self.rows = RowRenderer(consumer, self._renderer)

    def wants(self, entry: Entry) -> bool | Faulty:
        """Return whether the consumer gets `entry`; `Faulty` when that cannot be said."""
        return self.follows(entry) and self.judge(entry)

    def judge(self, entry: Entry) -> bool | Faulty:
        """Return whether an entry that the consumer follows passes its filters, and can be
        delivered."""
        if entry.fault is not None:
            return Faulty(entry.fault, is_retryable=False)
        if not self.filters or entry.action == "truncate":
            return True
        try:
            if self._test is not None and not self._test(_record(entry)):
                return False
            return not self._filter or bool(self._filter(change_of(self.message(entry))))
        except Exception as error:
            return Faulty(f"the filter raised {type(error).__name__}")

    def passes(self, message: bytes) -> bool | Faulty:
        """Return whether a message that was parked passes the filters as they are now."""
        if not self.filters:
            return True
        try:
            change = change_of(message)
            if change.action == "truncate":
                return True
            if self._test is not None and not self._test(change.record or {}):
                return False
            return not self._filter or bool(self._filter(change))
        except Exception as error:
            return Faulty(f"the filter raised {type(error).__name__}")

    def sent(self, message: bytes) -> bytes | Faulty:
        """Return what is sent for `message`: the same, or what the consumer's transform makes of
        it."""
        if not self._transform:
            return message
        try:
            return orjson.dumps(self._transform(change_of(message)))
        except Exception as error:
            return Faulty(f"the transform raised {type(error).__name__}")


def change_of(message: bytes) -> Change[Any]:
    """Return a message as a consumer's functions get it: its record is a dict."""
    envelope = _decode(message)
    record = envelope.record
    if record is not None and envelope.metadata.unchanged:
        record = {**record, **dict.fromkeys(envelope.metadata.unchanged, UNCHANGED)}
    return Change(record, envelope.changes, envelope.action, envelope.metadata)


def _record(entry: Entry) -> dict[str, Any]:
    record: dict[str, Any] = orjson.loads(entry.record or b"{}")
    return record
