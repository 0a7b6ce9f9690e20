"""Write lists for Postgres and read its JSON in a fraction of psycopg's own time.

What is written and read, and what is refused, is the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import NoneType
from typing import Any

import msgspec
import psycopg
from psycopg.types.array import ListDumper
from psycopg.types.json import set_json_loads

#: What no text of Postgres can have.
_NUL = "\x00"


def adapt(connection: psycopg.Connection | psycopg.AsyncConnection) -> None:
    """Have `connection`, whose encoding is UTF-8, write and read so."""
    connection.adapters.register_dumper(list, _Lists)
    set_json_loads(_loads, connection)


class _Lists(ListDumper):
    def dump(self, obj: list[Any]) -> Any:
        kinds = set(map(type, obj))
        has_null = NoneType in kinds
        kinds.discard(NoneType)
        if kinds == {str}:
            return (_texts_or_nulls(obj) if has_null else _texts(obj)).encode()
        if kinds <= {int, float}:
            numbers = ["NULL" if value is None else repr(value) for value in obj]
            return f"{{{','.join(numbers)}}}".encode()
        return super().dump(obj)


def _loads(text: str | bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        # A number that no float can hold.
        return json.loads(text)


def _texts(values: Sequence[str]) -> str:
    # Joined by what none of them can have, all are escaped at once.
    joined = _NUL.join(values)
    if joined.count(_NUL) >= len(values):
        raise _not_storable()
    return f'{{"{_escaped(joined).replace(_NUL, _BETWEEN)}"}}'


def _texts_or_nulls(values: Sequence[str | None]) -> str:
    array = ",".join(["NULL" if text is None else f'"{_escaped(text)}"' for text in values])
    if _NUL in array:
        raise _not_storable()
    return f"{{{array}}}"


_BETWEEN = '","'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _not_storable() -> psycopg.DataError:
    return psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
