"""The tuples in pgoutput messages: a row's columns, each with its kind and its text.

Source: PostgreSQL documentation, "Logical Replication Message Formats", TupleData.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from struct import Struct, error
from typing import Final, Literal, TypeAlias

from triggerkit.change import Record
from triggerkit.values import Decoder


class Toast(Enum):
    """The type of `UNCHANGED_TOAST`."""

    UNCHANGED = "unchanged"


#: In a tuple: a large (TOASTed) value that did not change and that the WAL does not carry.
UNCHANGED_TOAST: Final = Toast.UNCHANGED

#: A column's value as printed by Postgres; None is NULL, or, in the tuple of a replica identity
#: ('K'), "not part of the key".
RawValue: TypeAlias = bytes | Literal[Toast.UNCHANGED] | None

#: The columns' values in the relation's order.
Tuple: TypeAlias = list[RawValue]

_NULL: Final = 0x6E  # 'n'
_UNCHANGED: Final = 0x75  # 'u'
_TEXT: Final = 0x74  # 't'

#: The kinds that are one byte, so that a tuple may end by up to four of them.
_WITHOUT_TEXT: dict[int, Literal[Toast.UNCHANGED] | None] = {
    _NULL: None,
    _UNCHANGED: UNCHANGED_TOAST,
}

# A kind and the length after it. Fewer than five bytes are left only before columns without text.
_read_value = Struct("!BI").unpack_from


def read_tuple(data: bytes, at: int, count: int) -> tuple[Tuple, int]:
    """Read `count` columns from `at`; gives them and where they end, maybe past the data's end.

    Raises:
        ValueError, LookupError: a kind that is neither null, unchanged nor text; cut short.
    """
    values: Tuple = []
    append, read_value = values.append, _read_value
    try:
        for _ in range(count):
            kind, length = read_value(data, at)
            if kind == _TEXT:
                start = at + 5
                at = start + length
                append(data[start:at])
            elif kind == _NULL:
                at += 1
                append(None)
            elif kind == _UNCHANGED:
                at += 1
                append(UNCHANGED_TOAST)
            else:
                raise ValueError(f"a column of the kind 0x{kind:02x}")
    except error:
        end = at + count - len(values)
        values.extend(_WITHOUT_TEXT[kind] for kind in data[at:end])
        return values, end
    return values, at


def read_record(
    data: bytes, at: int, fields: Sequence[tuple[str, Decoder | None]]
) -> tuple[Record, tuple[str, ...]]:
    """Read and decode in one pass the tuple that goes from `at` to the end of `data`.

    It saves a third of the time of `read_tuple` and decoding after it. `fields` are the columns'
    names and decoders, None for text, which needs no call. Gives the row, and the names of the
    unchanged columns that it lacks.

    Raises:
        ValueError, LookupError: as `read_tuple`; or a decoder refuses its value.
    """
    record: Record = {}
    unchanged: tuple[str, ...] = ()
    read_value = _read_value
    try:
        for name, decode in fields:
            kind, length = read_value(data, at)
            if kind == _TEXT:
                start = at + 5
                at = start + length
                raw = data[start:at]
                record[name] = raw.decode() if decode is None else decode(raw)
            elif kind == _NULL:
                at += 1
                record[name] = None
            elif kind == _UNCHANGED:
                at += 1
                unchanged += (name,)
            else:
                raise ValueError(f"a column of the kind 0x{kind:02x}")
    except error:
        rest = fields[len(record) + len(unchanged) :]
        for (name, _), kind in zip(rest, data[at:], strict=True):
            if _WITHOUT_TEXT[kind] is None:
                record[name] = None
            else:
                unchanged += (name,)
        return record, unchanged
    if at != len(data):
        raise ValueError(f"{len(data)} bytes, of which {at} are the tuple")
    return record, unchanged
