"""Read of a push's body what a line of the terminal says: how many rows, of which tables."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from triggerkit.configuration.table_name import table_text


class _Metadata(msgspec.Struct):
    table_schema: str = ""
    table_name: str = ""


class _Message(msgspec.Struct):
    action: str = ""
    metadata: _Metadata | None = None


class _Body(_Message):
    data: list[_Message] | None = None


_read = msgspec.json.Decoder(_Body).decode


@dataclass(frozen=True, slots=True)
class Summary:
    """How many messages a body has, and their tables and actions, where they say."""

    rows: int
    tables: frozenset[str]
    actions: frozenset[str]


def summary_of(body: bytes) -> Summary:
    """Return what a body has; of one that a consumer's function made, mostly its size alone."""
    try:
        found = _read(body)
    except (msgspec.DecodeError, RecursionError):
        return Summary(1, frozenset(), frozenset())
    messages: list[_Message] = [found] if found.data is None else found.data
    named = [one.metadata for one in messages if one.metadata is not None]
    return Summary(
        len(messages),
        frozenset(table_text(one.table_schema, one.table_name) for one in named),
        frozenset(one.action for one in messages if one.action),
    )
