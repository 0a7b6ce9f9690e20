"""Values as Postgres 18 printed them become JSON; what it cannot have printed is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.recordings import ARRAY_TYPES, VALUES, RecordedValue
from triggerkit.values import MalformedValue, array_decoder, decode_text, decoder_for

BOOL, BYTEA, INT8, INT2, INT4, TEXT, OID, JSON = 16, 17, 20, 21, 23, 25, 26, 114
FLOAT4, FLOAT8, NUMERIC, TIMESTAMP, TIMESTAMPTZ, JSONB = 700, 701, 1700, 1114, 1184, 3802
INT4_ARRAY, TEXT_ARRAY, BOX_ARRAY, NUMERIC_ARRAY, TIMESTAMPTZ_ARRAY = 1007, 1009, 1020, 1231, 1185
LAST_BUILT_IN_OID = 9999

#: Types whose JSON by triggerkit is, once read, that of Postgres's own `to_json`.
AS_TO_JSON = {BOOL, INT8, INT2, INT4, FLOAT4, FLOAT8, JSON, JSONB}
TEXT_IN_JSON = {OID, NUMERIC}
ARRAYS_OF_DECODED = {199, 1000, 1005, 1007, 1016, 1021, 1022, 1028, 1115, 1185, 3807}
ARRAYS = {array for array, _, _ in ARRAY_TYPES}


def as_json(type_oid: int, printed: bytes) -> str:
    return orjson.dumps(decoder_for(type_oid)(printed)).decode()


def read(document: str) -> object:
    """`document` with its numbers as text, so that all their digits are compared."""
    return json.loads(document, parse_int=str, parse_float=str, parse_constant=pytest.fail)


def recorded(type_oids: set[int]) -> list[RecordedValue]:
    return [value for value in VALUES if value.type_oid in type_oids]


@pytest.mark.parametrize("value", recorded({INT8, INT2, INT4, BOOL, JSON, JSONB}), ids=str)
def test_exact_values_are_those_of_to_json(value: RecordedValue) -> None:
    assert read(as_json(value.type_oid, value.printed)) == read(value.as_json)


@pytest.mark.parametrize("value", recorded({FLOAT4, FLOAT8}), ids=str)
def test_floats_are_those_of_to_json_and_never_json_nan(value: RecordedValue) -> None:
    ours = json.loads(as_json(value.type_oid, value.printed), parse_constant=pytest.fail)
    assert repr(ours) == repr(float(value.printed)) or ours == json.loads(value.as_json)


@pytest.mark.parametrize("value", recorded({NUMERIC}), ids=str)
def test_numerics_are_text_with_all_digits(value: RecordedValue) -> None:
    assert decoder_for(NUMERIC)(value.printed) == value.printed.decode()


@pytest.mark.parametrize("value", recorded({TIMESTAMP, TIMESTAMPTZ}), ids=str)
def test_timestamps_are_iso_8601_where_it_has_a_form_for_them(value: RecordedValue) -> None:
    ours = decoder_for(value.type_oid)(value.printed)
    theirs = json.loads(value.as_json)
    try:
        moment = datetime.fromisoformat(theirs)
    except ValueError:
        assert ours == value.printed.decode()
        return
    zone = "" if moment.tzinfo is None else "Z"
    assert ours == moment.replace(tzinfo=None).isoformat(timespec="microseconds") + zone


def test_oids_are_integers() -> None:
    assert decoder_for(OID)(b"4294967295") == 4_294_967_295


@pytest.mark.parametrize(
    "value",
    recorded({value.type_oid for value in VALUES} - AS_TO_JSON - TEXT_IN_JSON - ARRAYS),
    ids=str,
)
def test_all_other_types_are_text_as_printed(value: RecordedValue) -> None:
    if value.type_oid not in (TIMESTAMP, TIMESTAMPTZ):
        assert decoder_for(value.type_oid)(value.printed) == value.printed.decode()


@pytest.mark.parametrize("value", recorded(ARRAYS - {NUMERIC_ARRAY, TIMESTAMPTZ_ARRAY}), ids=str)
def test_arrays_are_the_nested_lists_of_to_json(value: RecordedValue) -> None:
    assert json.loads(as_json(value.type_oid, value.printed)) == json.loads(value.as_json)


def test_elements_of_arrays_are_as_outside_of_them() -> None:
    assert decoder_for(NUMERIC_ARRAY)(b"{1.50,NaN,NULL}") == ["1.50", "NaN", None]
    assert decoder_for(TIMESTAMPTZ_ARRAY)(b'{"2026-11-21 20:19:34.5+00",infinity}') == [
        "2026-11-21T20:19:34.500000Z",
        "infinity",
    ]


@pytest.mark.parametrize(("array", "element", "delimiter"), ARRAY_TYPES)
def test_every_built_in_array_is_known(array: int, element: int, delimiter: str) -> None:
    assert array <= LAST_BUILT_IN_OID
    assert decoder_for(array)(f"{{NULL{delimiter}NULL}}".encode()) == [None, None]
    assert array not in ARRAYS_OF_DECODED or decoder_for(element) is not decode_text


@pytest.mark.parametrize(
    "value", [value for value in VALUES if value.type_oid > LAST_BUILT_IN_OID], ids=str
)
def test_arrays_of_unknown_types_are_text_until_their_decoder_is_built(
    value: RecordedValue,
) -> None:
    assert decoder_for(value.type_oid)(value.printed) == value.printed.decode()
    if value.sql.startswith("ARRAY") and "point3" not in value.sql:
        assert array_decoder(decode_text)(value.printed) == json.loads(value.as_json)


def test_a_delimiter_other_than_the_comma() -> None:
    assert decoder_for(BOX_ARRAY)(b"{(1,1),(0,0);NULL}") == ["(1,1),(0,0)", None]
    assert array_decoder(decode_text, "^")(b'{a^"^"^]}') == ["a", "^", "]"]


def test_a_large_number_in_json_is_kept_digit_by_digit() -> None:
    digits = b"7" * 5000
    assert orjson.dumps({"n": decoder_for(JSONB)(digits)}) == b'{"n":' + digits + b"}"


def test_json_inside_an_array_is_json() -> None:
    raw = rb'{"{\"a\": \"x,\\\"y\"}",NULL,"null"}'
    assert as_json(3807, raw) == r'[{"a": "x,\"y"},null,null]'


def test_a_timestamp_of_another_session_than_ours_is_refused() -> None:
    for printed in (b"2026-11-21 20:19:34+02", b"2026-11-21 20:19:34.123456+05", b"21/11/2026"):
        with pytest.raises(MalformedValue):
            decoder_for(TIMESTAMPTZ)(printed)


@pytest.mark.parametrize(
    ("type_oid", "printed"),
    [
        (BOOL, b"true"),
        (INT4, b""),
        (INT4, b"1.5"),
        (INT4, b"1_000"),
        (INT4, b" 1"),
        (INT4, b"007"),
        (INT4, b"-0"),
        (INT8, b"9223372036854775808"),
        (FLOAT8, b"one"),
        (TEXT, b"\xff"),
        (NUMERIC, b"\xff"),
        (JSONB, b'"\xff"'),
        (TIMESTAMPTZ, b"2026-11-21T20:19:34.123456Z"),
        (TIMESTAMPTZ, b"2026-11-21 20:19:34"),
        (TIMESTAMP, b"2026-11-21 20:19:34+00"),
        (TIMESTAMP, b"2026-1-21 20:19:34"),
        (INT4_ARRAY, b""),
        (INT4_ARRAY, b"1,2"),
        (INT4_ARRAY, b"{1,2"),
        (INT4_ARRAY, b"{1,,2}"),
        (INT4_ARRAY, b"{1,}"),
        (INT4_ARRAY, b"{,}"),
        (INT4_ARRAY, b"{1}}"),
        (INT4_ARRAY, b"{1}x"),
        (INT4_ARRAY, b"{1 2}"),
        (INT4_ARRAY, b"{{1}{2}}"),
        (INT4_ARRAY, b"[0:1]="),
        (INT4_ARRAY, b"{" * 7 + b"1" + b"}" * 7),
        (TEXT_ARRAY, b'{"a}'),
        (TEXT_ARRAY, b'{"a\\'),
        (TEXT_ARRAY, b'{"a"b}'),
        (TEXT_ARRAY, b"{a\\b}"),
        (TEXT_ARRAY, b'{"\xff"}'),
    ],
)
def test_what_postgres_never_prints_is_refused_without_showing_it(
    type_oid: int, printed: bytes
) -> None:
    with pytest.raises(MalformedValue) as caught:
        decoder_for(type_oid)(printed)
    assert isinstance(caught.value, ValueError)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert len(printed) < 3 or printed.decode(errors="replace") not in str(caught.value)


@given(
    st.sampled_from([*{value.type_oid for value in VALUES}, *ARRAYS]),
    st.binary(max_size=40) | st.text('{}[]",;\\:=01aNUL -+.Z').map(str.encode),
)
def test_any_bytes_are_json_or_refused(type_oid: int, printed: bytes) -> None:
    try:
        value = decoder_for(type_oid)(printed)
    except MalformedValue:
        return
    orjson.dumps(value)


@given(st.datetimes())
def test_every_moment_is_iso_8601(moment: datetime) -> None:
    printed = moment.isoformat(" ").encode()
    if moment.microsecond:
        printed = printed.rstrip(b"0")
    iso = moment.isoformat(timespec="microseconds")
    assert decoder_for(TIMESTAMP)(printed) == iso
    assert decoder_for(TIMESTAMPTZ)(printed + b"+00") == iso + "Z"
    assert datetime.fromisoformat(f"{iso}Z") == moment.replace(tzinfo=UTC)


def print_array(values: list[object]) -> str:
    """As `array_out` prints it."""
    return "{" + ",".join(map(print_item, values)) + "}"


def print_item(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return print_array(value)
    text = str(value)
    if text and text.upper() != "NULL" and not set(text) & set('{},"\\ \t\n\r\v\f'):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


ITEMS = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(st.lists(ITEMS) | st.lists(st.lists(ITEMS, min_size=1), min_size=1))
def test_every_array_of_text_comes_back(values: list[object]) -> None:
    assert decoder_for(TEXT_ARRAY)(print_array(values).encode()) == values
    assert decoder_for(TEXT_ARRAY)(b"[-1:3][2:9]=" + print_array(values).encode()) == values
