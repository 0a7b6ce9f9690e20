"""Read a JSON object by its members, where a value may be one that no parser takes.

A column of type json holds what Postgres takes: half a surrogate pair, a number beyond any double,
a thousand nested arrays. Such a value keeps nobody from the others beside it.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any, Final

import msgspec
import orjson

#: Text, and what structures an object around it.
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]:,]', re.DOTALL)

#: As many digits as a 64-bit integer may not have.
_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")

#: Nested lists and objects of a value that is shown.
MOST_NESTED: Final = 100

#: Down to a column's value in a payload: of a record, of a message, of a list, in an object.
PAYLOAD_LEVELS: Final = 5

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Unreadable(bytes):
    """A value that cannot be read, as its JSON text."""

    __slots__ = ()


def read_object(text: bytes) -> dict[str, Any]:
    """Return the members of an object; a value that cannot be read is `Unreadable`."""
    try:
        found: dict[str, Any] = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {name: _read(value) for name, value in split_object(text).items()}
    return found


def split_object(text: bytes) -> dict[str, bytes]:
    """Return the members of an object as JSON text: no value is read, whatever it is."""
    try:
        return {name: bytes(value) for name, value in _members(text).items()}
    except (msgspec.DecodeError, RecursionError):
        return _split(text)


def show_object(text: bytes, levels: int = 1) -> dict[str, Any]:
    """Return an object to be looked at: what cannot be read, would be rounded, or is nested too
    deep to be written again, is its JSON text. `levels` is how deep such a value is looked for."""
    return {name: show_value(value, levels) for name, value in split_object(text).items()}


def show_value(text: bytes, levels: int = 1) -> Any:
    """Return any value to be looked at, as `show_object` has the members of an object."""
    read = _read(text)
    is_readable = not isinstance(read, Unreadable) and not _is_deeper(read, MOST_NESTED)
    if is_readable and _is_exact(text):
        return read
    if levels > 1 and text[:1] == b"{":
        return show_object(text, levels - 1)
    if levels > 1 and text[:1] == b"[":
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            return [show_value(bytes(item), levels - 1) for item in _items(text)]
    return text.decode()


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return False
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inner)


def read_exactly(text: bytes) -> Any:
    """Return what JSON text is, with every integer as it is written.

    Raises:
        ValueError: it is no JSON, or has what no parser takes.
    """
    read = orjson.loads(text)
    # Integers beyond 64 bits are rounded by it.
    return json.loads(text) if _LONG_NUMBER.search(text) else read


def _read(value: bytes) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return Unreadable(value)


def _is_exact(text: bytes) -> bool:
    """Return whether no integer of readable JSON is rounded where it is read."""
    if not _LONG_NUMBER.search(text):
        return True
    try:
        json.loads(text, parse_int=_within_64_bits)
    except (ValueError, RecursionError):
        return False
    return True


def _within_64_bits(digits: str) -> int:
    if not -(2**63) <= (number := int(digits)) < 2**64:
        raise ValueError
    return number


def _split(text: bytes) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    depth, start = 0, 0
    name: str | None = None
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first in b"{[":
            depth += 1
        elif depth > 1:
            depth -= first in b"}]"
        elif first in b",}":
            if name is not None:
                members[name] = text[start : token.start()].strip()
            name = None
        elif first in b":":
            start = token.end()
        elif name is None:
            name = orjson.loads(token[0])
    return members
