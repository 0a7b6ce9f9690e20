"""Compare values as messages have them in the way that Postgres compares them in their column."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple, TypeAlias

#: A value in the order that Postgres has.
Key: TypeAlias = Callable[[Any], Hashable]


class UnfitValue(Exception):
    """A value is not of the type that the column had when its filter was declared."""


class Comparison(NamedTuple):
    """How the values of a type compare. Without an order only == and != are those of Postgres."""

    key: Key
    is_ordered: bool


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UnfitValue
    return value


def _padded(value: Any) -> str:
    # The spaces at the end of a char(n) mean nothing.
    return _text(value).rstrip(" ")


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UnfitValue
    return value


def number(value: Any) -> tuple[bool, Decimal]:
    """Return a number in the order that Postgres has: NaN equals itself and is above all others.

    Raises:
        UnfitValue: it is none.
    """
    if isinstance(value, bool):
        raise UnfitValue
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        raise UnfitValue from None
    return (True, Decimal(0)) if found.is_nan() else (False, found)


_TIME = re.compile(
    r"(?P<year>\d{4,})-(?P<day>\d\d-\d\d)(?:[ T](?P<time>\d\d:\d\d:\d\d)"
    r"(?:\.(?P<fraction>\d{1,6}))?(?:Z|\+00)?)?(?P<bc> BC)?"
)


def _time(value: Any) -> tuple[int, int, str, str, str]:
    """Return a date or a timestamp in its order, before Christ and after the year 9999 too."""
    text = _text(value)
    if text in ("infinity", "-infinity"):
        return (-1 if text.startswith("-") else 1), 0, "", "", ""
    found = _TIME.fullmatch(text)
    if found is None:
        raise UnfitValue
    year = int(found["year"])
    fraction = (found["fraction"] or "").ljust(6, "0")
    return 0, -year if found["bc"] else year, found["day"], found["time"] or "00:00:00", fraction


_NUMBER: Final = Comparison(number, is_ordered=True)
_TIMES: Final = Comparison(_time, is_ordered=True)
_EXACT: Final = Comparison(_text, is_ordered=False)
_AS_PRINTED: Final = Comparison(_text, is_ordered=True)

#: The types that are compared as Postgres does, by their names in its catalog; the others are not
#: compared at all, such as intervals, of which '1 mon' equals '30 days'.
_COMPARISONS: Final[dict[str, Comparison]] = {
    **dict.fromkeys(("int2", "int4", "int8", "oid", "float4", "float8", "numeric"), _NUMBER),
    "xid8": _NUMBER,
    "bool": Comparison(_bool, is_ordered=True),
    **dict.fromkeys(("date", "timestamp", "timestamptz"), _TIMES),
    # In the order of their text, which has a fixed form.
    **dict.fromkeys(("time", "uuid", "macaddr", "macaddr8", "bit", "varbit"), _AS_PRINTED),
    **dict.fromkeys(("timetz", "inet", "cidr", "pg_lsn", "char", "name"), _EXACT),
    **dict.fromkeys(("text", "varchar"), _EXACT),
    "bpchar": Comparison(_padded, is_ordered=False),
}

#: Types of text, whose order is that of their column's collation.
COLLATED: Final = frozenset({"text", "varchar", "bpchar", "name"})

#: What stands in a filter for the type of an enum, and for text in the order of its code points.
ENUM: Final = "enum"
BY_CODE_POINT: Final = " by code point"


def comparison_of(type_name: str) -> Comparison | None:
    """Return how values of a type compare, None when they cannot be compared as Postgres does."""
    if type_name == ENUM:
        return _EXACT
    base = type_name.removesuffix(BY_CODE_POINT)
    found = _COMPARISONS.get(base)
    if found is not None and base != type_name:
        return found._replace(is_ordered=True)
    return found
