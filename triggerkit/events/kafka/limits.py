"""Whether a topic takes a message, as far as that is known before the broker says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from math import inf
from typing import Final, Literal

from triggerkit.events.kafka.broker import BrokerTopic
from triggerkit.events.kafka.faults import KEYLESS, TOO_LARGE, UNSURE, said
from triggerkit.events.kafka.record import Record

#: Whether a message fits: one that may, or may not, is sent alone, and the broker decides.
Fit = Literal["surely", "maybe", "no"]

#: More than a batch and all headers but the last take, and bytes of a character at most.
_REST_BYTES: Final = 600
_UTF8: Final = 4

#: The part of a limit that is left free: what the broker compresses anew may become larger.
_SPARE: Final = 50


def together_bytes(limit: int) -> int:
    """Return how many bytes may be sent together to a topic that takes `limit` at once."""
    return max(1, limit - limit // _SPARE)


def fit(record: Record, topic: BrokerTopic, *, is_compressed: bool) -> Fit:
    """Return whether a topic takes a message that is, or is not, compressed on its way."""
    limit = topic.max_message_bytes
    if _most_bytes(record) <= together_bytes(limit):
        return "surely"
    size_bytes = record.size_bytes
    if size_bytes <= together_bytes(limit):
        return "surely"
    if is_compressed or size_bytes <= limit or not topic.is_limit_known:
        return "maybe"
    return "no"


def judged(
    records: Sequence[Record], there: Mapping[str, BrokerTopic], *, is_compressed: bool
) -> tuple[Fit, str | None]:
    """Return whether all records fit, and what is to be said of the first that does not, or may
    not."""
    least = min((topic.max_message_bytes for topic in there.values()), default=0)
    if _most_of_any(records) <= together_bytes(least):
        return "surely", None
    doubt: str | None = None
    for record in records:
        topic = there[record.topic]
        if record.key is None and topic.is_compacted:
            return "no", said(KEYLESS, "", record.topic)
        found = fit(record, topic, is_compressed=is_compressed)
        if found == "no":
            return found, too_large(record, topic)
        if found == "maybe" and doubt is None:
            doubt = said(UNSURE, "it goes alone", record.topic)
    return ("surely" if doubt is None else "maybe"), doubt


def too_large(record: Record, topic: BrokerTopic, unit: str = "bytes") -> str:
    """Return what is to be said of a message that its topic does not take."""
    detail = f"{record.size_bytes:,} {unit}, and the limit is {topic.max_message_bytes:,}"
    return said(TOO_LARGE, detail, record.topic)


def _most_of_any(records: Sequence[Record]) -> float:
    """Return a size that none of `records` has, told at once for all; more than any limit if one
    has no key."""
    keys = [record.key for record in records]
    if None in keys:
        return inf
    values = [record.value for record in records]
    last = [record.headers[-1][1] for record in records if record.headers]
    parts = (_longest(values), _UTF8 * _longest(keys), _UTF8 * _longest(last))
    return _REST_BYTES + sum(parts)


def _longest(parts: Iterable[Sized | None]) -> int:
    return max(map(len, filter(None, parts)), default=0)


def _most_bytes(record: Record) -> int:
    """Return a size that a message surely has not, which costs less to tell than its own: of the
    headers only the last may be long."""
    size_bytes = _REST_BYTES + len(record.value or b"") + _UTF8 * len(record.key or "")
    return size_bytes + _UTF8 * len(record.headers[-1][1] if record.headers else "")
