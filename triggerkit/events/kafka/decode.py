"""A message of Kafka as clients of the REST API read it, whoever wrote it."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from triggerkit.events.message import Header, Message


def message_from(found: Any) -> Message:
    """Return a message that Kafka's client gave: what is not UTF-8 is in Base64."""
    key, is_binary_key = _text(found.key())
    value, is_binary_value = _text(found.value())
    binary = [("key", is_binary_key), ("value", is_binary_value)]
    return Message(
        found.topic(),
        found.partition(),
        found.offset(),
        found.timestamp()[1],
        key,
        value,
        tuple(Header(name, *_text(content)) for name, content in found.headers() or ()),
        tuple(name for name, is_binary in binary if is_binary),
    )


def _text(content: bytes | str | None) -> tuple[str | None, bool]:
    """Return what is to be shown of some bytes, and whether that is Base64."""
    # Bytes that are empty are not missing.
    if content is None or isinstance(content, str):
        return content, False
    try:
        return content.decode(), False
    except UnicodeDecodeError:
        return b64encode(content).decode(), True
