"""Rows as a backfill reads them: lines of COPY, decoded as the stream's values are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from triggerkit.change import Key, Record
from triggerkit.consumers.backfill.snapshot import Snapshot
from triggerkit.replication.sighting import Sighting
from triggerkit.values import Decoder

#: A cursor or bound: the order columns' values as Postgres prints them.
Place = list[str]

#: Source: PostgreSQL documentation, "COPY", "Text Format".
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)

_CHARACTERS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


class Bounds(NamedTuple):
    """Values of the sort column, as text: from `lower` on, and before `until`."""

    lower: str | None = None
    until: str | None = None

    @property
    def are_open(self) -> bool:
        """Return whether all rows are within, those without a sort value too."""
        return self.lower is None and self.until is None


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its primary key as text, its values, and its place in the reading order."""

    key: Key
    record: Record
    place: Place


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows read by one snapshot, in order; `finished` when the phase has no more after them.

    `sighting` is what that snapshot sees of their table.
    """

    snapshot: Snapshot
    rows: list[Row]
    finished: bool
    size_bytes: int = 0
    sighting: Sighting | None = None


def row_reader(
    decoders: Mapping[str, Decoder], key: Sequence[str], order: Sequence[str]
) -> Callable[[Sequence[bytes | None]], Row]:
    """Return what makes a row of its columns' values, which are as Postgres prints them.

    So that a value is the same as from the stream, it is decoded by the same `decoders`.
    """
    columns = [*decoders]
    key_at = [columns.index(name) for name in key]
    order_at = [columns.index(name) for name in order]

    def read(raw: Sequence[bytes | None]) -> Row:
        record = {
            name: None if value is None else decode(value)
            for (name, decode), value in zip(decoders.items(), raw, strict=True)
        }
        return Row(
            tuple((raw[i] or b"").decode() for i in key_at),
            record,
            [(raw[i] or b"").decode() for i in order_at],
        )

    return read


def values_of(line: bytes) -> list[bytes | None]:
    """Return the values of one row, as Postgres prints them; None for NULL."""
    fields = line.removesuffix(b"\n").split(b"\t")
    if b"\\" not in line:
        return [*fields]
    return [_value_of(field) for field in fields]


def _value_of(field: bytes) -> bytes | None:
    if field == rb"\N":
        return None
    return _ESCAPED.sub(_character, field) if b"\\" in field else field


def _character(match: re.Match[bytes]) -> bytes:
    return _CHARACTERS.get(match[1], match[1])
