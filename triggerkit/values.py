"""Values as Postgres prints them, made ready for JSON: `orjson.dumps` takes every one as it is.

Exact values stay exact: numbers that a JSON reader would round are text as printed. The session
is expected to print ISO dates in UTC, shortest floats and UTF-8 (`DateStyle=ISO`, `TimeZone=UTC`,
`extra_float_digits=3`, `client_encoding=UTF8`).
Source: PostgreSQL documentation, "Data Types"; type OIDs from its `pg_type.dat`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isfinite
from typing import Final, TypeAlias

import orjson

#: Turns the bytes that Postgres printed into a value ready for JSON; raises `MalformedValue`.
Decoder: TypeAlias = Callable[[bytes], object]

_MAX_DIMENSIONS: Final = 6  # MAXDIM: what Postgres allows
_MIN_INT8: Final = -(2**63)
_MAX_INT8: Final = 2**63 - 1
_DIGITS_OF_MAX_INT8: Final = 19
_ZERO: Final = 0x30


class MalformedValue(ValueError):
    """A value's text does not fit its type; check the session's settings and encoding.

    The message never carries the value.
    """

    def __init__(self, type_name: str) -> None:
        super().__init__(f"a value is not what Postgres prints for the type {type_name}")
        self.type_name = type_name


def decoder_for(type_oid: int) -> Decoder:
    """Return the decoder of a built-in type or its arrays; text for every type that is not known.

    int2, int4, int8 and oid give int; bool gives bool; float4 and float8 give float, or "NaN",
    "Infinity", "-Infinity"; timestamps give ISO 8601 with microseconds, with Z under timestamptz;
    json and jsonb give `orjson.Fragment`, on one line; arrays give nested lists with None for NULL;
    all else, numeric and bytea included, is text as printed.
    """
    element_oid = _ELEMENT_OIDS.get(type_oid)
    if element_oid is None:
        return _SCALARS.get(type_oid, decode_text)
    return array_decoder(decoder_for(element_oid), ";" if element_oid == _BOX else ",")


def array_decoder(element_decoder: Decoder, delimiter: str = ",") -> Decoder:
    """Return a decoder of arrays, for element types known only from the catalog (enums, domains).

    Bounds (`[0:1]={7,8}`) are left out. `delimiter` is `pg_type.typdelim` of the element.
    """
    separator = delimiter.encode()
    item = re.compile(_ITEM % re.escape(separator), re.DOTALL)

    def decode_array(raw: bytes) -> object:
        bounds = _BOUNDS.match(raw)
        start = bounds.end() if bounds else 0
        if _FLAT.fullmatch(raw, start):
            return _decode_flat(raw[start + 1 : -1], separator, element_decoder)
        values, end = _decode_nested(raw, start, separator, item, element_decoder)
        if end != len(raw):
            raise MalformedValue("array")
        return values

    return decode_array


def decode_text(raw: bytes) -> str:
    """Text as printed."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise MalformedValue("text in UTF-8") from None


def decode_integer(raw: bytes) -> int:
    """Return an integer of up to 64 bits, exactly as printed: its `str` gives the same text
    again."""
    if raw.isdigit() and len(raw) < _DIGITS_OF_MAX_INT8 and (raw[0] != _ZERO or len(raw) == 1):
        return int(raw)
    if _INTEGER.fullmatch(raw) and _MIN_INT8 <= (value := int(raw)) <= _MAX_INT8:
        return value
    raise MalformedValue("integer")


def _decode_bool(raw: bytes) -> bool:
    value = _BOOLS.get(raw)
    if value is None:
        raise MalformedValue("boolean")
    return value


def _decode_float(raw: bytes) -> float | str:
    try:
        value = float(raw)
    except ValueError:
        raise MalformedValue("float") from None
    return value if isfinite(value) else decode_text(raw)


def _decode_json(raw: bytes) -> orjson.Fragment:
    decode_text(raw)
    # A value of type json keeps the white space it was written with. In JSON it means nothing, in
    # the COPY that a record goes through it ends a column or a row.
    return orjson.Fragment(raw.translate(_BREAKS_TO_SPACES))


def _decode_timestamptz(raw: bytes) -> str:
    # Nine of ten have six digits of fraction; one call compares them with the form of all.
    if raw.translate(_DIGITS_TO_ZERO) == _USUAL_TIMESTAMPTZ:
        text = raw.decode().replace("+00", "Z")
        if text[26] == "Z":
            return text.replace(" ", "T")
    iso = _iso(raw[:-3]) if raw.endswith(b"+00") else None
    return _beyond_iso(raw) if iso is None else f"{iso}Z"


def _decode_timestamp(raw: bytes) -> str:
    iso = _iso(raw)
    return _beyond_iso(raw) if iso is None else iso


def _iso(raw: bytes) -> str | None:
    """Return a timestamp without its zone as ISO 8601 with microseconds, None where that has no
    form."""
    full = raw + b".000000" if len(raw) == _WHOLE_SECONDS else raw.ljust(26, b"0")
    if full.translate(_DIGITS_TO_ZERO) == _USUAL_TIMESTAMP:
        return full.decode().replace(" ", "T")
    return None


def _beyond_iso(raw: bytes) -> str:
    """As printed: infinity, before Christ, after the year 9999."""
    if _BEYOND_ISO.fullmatch(raw):
        return raw.decode()
    raise MalformedValue("timestamp in UTC")


def _decode_flat(body: bytes, separator: bytes, decode: Decoder) -> list[object]:
    """Return the elements of an array of one dimension without quotes: `1,2,NULL`."""
    if not body:
        return []
    items = body.split(separator)
    if b"" in items:
        raise MalformedValue("array")
    return [None if item == b"NULL" else decode(item) for item in items]


def _decode_nested(
    raw: bytes,
    at: int,
    separator: bytes,
    item: re.Pattern[bytes],
    decode: Decoder,
    depth: int = 1,
) -> tuple[list[object], int]:
    """Read the array that opens at `at`; gives it and where it ends."""
    if raw[at : at + 1] != b"{" or depth > _MAX_DIMENSIONS:
        raise MalformedValue("array")
    values: list[object] = []
    while True:
        at += 1  # over the brace or the delimiter
        value: object
        if raw[at : at + 1] == b"{":
            value, at = _decode_nested(raw, at, separator, item, decode, depth + 1)
        else:
            value, at = _decode_item(raw, at, item, decode)
        values.append(value)
        after = raw[at : at + 1]
        if after == b"}":
            return values, at + 1
        if after != separator:
            raise MalformedValue("array")


def _decode_item(
    raw: bytes, at: int, item: re.Pattern[bytes], decode: Decoder
) -> tuple[object, int]:
    found = item.match(raw, at)
    if found is None:
        raise MalformedValue("array")
    quoted, bare = found.groups()
    if quoted is not None:
        return decode(_ESCAPED.sub(rb"\1", quoted) if b"\\" in quoted else quoted), found.end()
    return None if bare == b"NULL" else decode(bare), found.end()


_INTEGER = re.compile(rb"-?[1-9]\d{0,18}|0")
_BOUNDS = re.compile(rb"(?:\[-?\d+:-?\d+\])+=")
_FLAT = re.compile(rb'\{[^{}"\\]*\}')
#: An item of an array, quoted or bare; to be filled with the escaped delimiter.
_ITEM = rb'"([^"\\]*(?:\\.[^"\\]*)*)"|([^"\\{}%b]+)'
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_BEYOND_ISO = re.compile(
    rb"-?infinity|\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?(?:\+00)? BC"
    rb"|\d{5,6}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?(?:\+00)?"
)
_WHOLE_SECONDS: Final = len("2000-01-01 00:00:00")
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_USUAL_TIMESTAMP = b"0000-00-00 00:00:00.000000"
_USUAL_TIMESTAMPTZ = _USUAL_TIMESTAMP + b"+00"
_BREAKS_TO_SPACES = bytes.maketrans(b"\t\n\r", b"   ")
_BOOLS = {b"t": True, b"f": False}

_BOX: Final = 603
_SCALARS: dict[int, Decoder] = {
    16: _decode_bool,
    20: decode_integer,  # int8
    21: decode_integer,  # int2
    23: decode_integer,  # int4
    26: decode_integer,  # oid
    114: _decode_json,
    700: _decode_float,  # float4
    701: _decode_float,  # float8
    1114: _decode_timestamp,
    1184: _decode_timestamptz,
    3802: _decode_json,  # jsonb
}

#: The element's type by the OID of its array.
# fmt: off
_ELEMENT_OIDS: dict[int, int] = {
    143: 142, 199: 114, 271: 5069, 629: 628, 651: 650, 719: 718, 775: 774, 791: 790, 1000: 16,
    1001: 17, 1002: 18, 1003: 19, 1005: 21, 1006: 22, 1007: 23, 1008: 24, 1009: 25, 1010: 27,
    1011: 28, 1012: 29, 1013: 30, 1014: 1042, 1015: 1043, 1016: 20, 1017: 600, 1018: 601, 1019:
    602, 1020: 603, 1021: 700, 1022: 701, 1027: 604, 1028: 26, 1034: 1033, 1040: 829, 1041: 869,
    1115: 1114, 1182: 1082, 1183: 1083, 1185: 1184, 1187: 1186, 1231: 1700, 1270: 1266, 1561:
    1560, 1563: 1562, 2201: 1790, 2207: 2202, 2208: 2203, 2209: 2204, 2210: 2205, 2211: 2206,
    2949: 2970, 2951: 2950, 3221: 3220, 3643: 3614, 3644: 3642, 3645: 3615, 3735: 3734, 3770:
    3769, 3807: 3802, 3905: 3904, 3907: 3906, 3909: 3908, 3911: 3910, 3913: 3912, 3927: 3926,
    4073: 4072, 4090: 4089, 4097: 4096, 4192: 4191, 5039: 5038, 6150: 4451, 6151: 4532, 6152:
    4533, 6153: 4534, 6155: 4535, 6157: 4536,
}
# fmt: on
