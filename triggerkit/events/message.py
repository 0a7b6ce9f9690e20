"""An event as clients read it: its place in its topic, and what it says as text."""

from __future__ import annotations

from typing import Any, NamedTuple

from triggerkit.events.event import Event


class Header(NamedTuple):
    """A header of a message; the value of one `is_base64` is not text."""

    key: str
    value: str | None
    is_base64: bool = False


class Message(NamedTuple):
    """A message of a topic. `timestamp` is in milliseconds since 1970.

    `key` and `value` may be None, as those of a truncate and of a tombstone; those named in
    `base64` are bytes that are not text, as only what others wrote to the topic has them.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: str | None
    value: str | None
    headers: tuple[Header, ...]
    base64: tuple[str, ...] = ()


def message_of(event: Event) -> Message:
    """Return an event of the embedded log as a message."""
    headers = tuple(Header(key, value) for key, value in event.headers)
    place = (event.topic, event.partition, event.offset, event.timestamp)
    return Message(*place, event.key, event.value.decode(), headers)


def as_json(message: Message) -> dict[str, Any]:
    """Return a message as the REST API has it."""
    found: dict[str, Any] = {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "timestamp": message.timestamp,
        "key": message.key,
        "value": message.value,
        "headers": [_header(header) for header in message.headers],
    }
    if message.base64:
        found["base64"] = list(message.base64)
    return found


def _header(header: Header) -> dict[str, Any]:
    found: dict[str, Any] = {"key": header.key, "value": header.value}
    return {**found, "base64": True} if header.is_base64 else found
