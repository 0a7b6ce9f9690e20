"""Superjson, as the SDK writes payloads, as JSON for Python."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
import pytest

from triggerkit.compat.trigger_dev.payloads.super_json import read_packet, read_super_json
from triggerkit.errors import InvalidPayload


def packed(value: Any, values: Any = None) -> str:
    return orjson.dumps({"json": value, "meta": {"values": values, "v": 1}}).decode()


@pytest.mark.parametrize(
    ("value", "values", "expected"),
    [
        ({"a": 1}, None, {"a": 1}),
        ("2026-01-31T12:00:00.000Z", ["Date"], "2026-01-31T12:00:00.000Z"),
        ({"n": "12345678901234567890"}, {"n": ["bigint"]}, {"n": 12345678901234567890}),
        ({"a": None, "b": 1}, {"a": ["undefined"]}, {"b": 1}),
        ([None, 1], {"0": ["undefined"]}, [None, 1]),
        (None, ["undefined"], None),
        ({"s": ["1"]}, {"s": ["set", {"0": ["bigint"]}]}, {"s": [1]}),
        ({"m": [["a", "1"]]}, {"m": ["map", {"0.1": ["bigint"]}]}, {"m": {"a": 1}}),
        ({"m": [[1, 2]]}, {"m": ["map"]}, {"m": [[1, 2]]}),
        ({"a.b": {"c": "1"}}, {r"a\.b.c": ["bigint"]}, {"a.b": {"c": 1}}),
        ({"u": "http://a/"}, {"u": ["URL"]}, {"u": "http://a/"}),
        ({"t": [1, 2]}, {"t": [["typed-array", "Uint8Array"]]}, {"t": [1, 2]}),
        ([{"d": "x"}, {"d": "y"}], {"0.d": ["Date"], "1.d": ["Date"]}, [{"d": "x"}, {"d": "y"}]),
    ],
)
def test_what_it_says_becomes_json(value: Any, values: Any, expected: Any) -> None:
    assert read_super_json(packed(value, values)) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "malformed JSON"),
        ('{"json": NaN}', "malformed JSON"),
        ("[]", "superjson"),
        ("{}", "superjson"),
        (packed({"n": "NaN"}, {"n": ["number"]}), "n: NaN is a number that JSON has not"),
        (packed({"n": "x"}, {"n": ["bigint"]}), "n: it is no bigint"),
        (packed({"n": 1}, {"m": ["bigint"]}), "m: its superjson names a place"),
        (packed([1], {"7": ["bigint"]}), "7: its superjson names a place"),
        (packed(1, 7), "its superjson is malformed"),
        ("[" * 100_000, "malformed JSON"),
        (packed([1], {"9" * 5000: ["bigint"]}), "names a place"),
    ],
)
def test_what_is_wrong_is_told(text: str, told: str) -> None:
    with pytest.raises(InvalidPayload, match=told):
        read_super_json(text)


def unversioned(value: Any, **meta: Any) -> str:
    """As the superjson writes it that is in the SDK."""
    return orjson.dumps({"json": value, "meta": meta}).decode()


@pytest.mark.parametrize(
    ("name", "path"),
    [("a\\b", "a\\b"), ("a\\\\b", "a\\\\b"), ("a.b", "a\\.b"), ("\\n", "\\n"), ("", "")],
)
def test_names_with_backslashes_are_those_of_the_version(name: str, path: str) -> None:
    text = unversioned({name: {"c": "1"}}, values={f"{path}.c": ["bigint"]})
    assert read_super_json(text) == {name: {"c": 1}}
    escaped = name.replace("\\", "\\\\").replace(".", "\\.")
    assert read_super_json(packed({name: {"c": "1"}}, {f"{escaped}.c": ["bigint"]})) == {
        name: {"c": 1}
    }


@pytest.mark.parametrize(
    ("value", "path", "expected"),
    [
        ({"x.y": "1"}, "x.y", {"x.y": 1}),
        ({"k": {"x.y": "1"}}, "k.x.y", {"k": {"x.y": 1}}),
        ({"a.b": {r"d\.e": "1"}}, r"a\.b.d\.e", {"a.b": {r"d\.e": 1}}),
        ([{"x.y.": "1"}], "0.x.y.", [{"x.y.": 1}]),
        ({"x.y": "1", "x": {"z": 2}}, "x.y", {"x.y": 1, "x": {"z": 2}}),
    ],
)
def test_a_last_name_may_have_its_dots_as_they_are(value: Any, path: str, expected: Any) -> None:
    assert read_super_json(unversioned(value, values={path: ["bigint"]})) == expected


@pytest.mark.parametrize(
    ("value", "equalities"),
    [
        ({"self": None}, [["self"]]),
        ({"a": {"b": None}}, {"a": ["a.b"]}),
        ({"x": {"self": None}, "l": {"x": {"self": None}}}, {"x": ["l.x", "l.x.self"]}),
        ({"a": {"b": None}}, [["a.b"], {"c": ["d"]}]),
    ],
)
def test_what_refers_to_itself_is_refused(value: Any, equalities: Any) -> None:
    with pytest.raises(InvalidPayload, match="refers to what it is a part of"):
        read_super_json(unversioned(value, referentialEqualities=equalities))


@pytest.mark.parametrize("equalities", [{"a": ["b"]}, [[], {"a": ["b"]}], 7, {"a": 7}, [7]])
def test_what_is_there_twice_is_taken_twice(equalities: Any) -> None:
    value = {"a": {"x": 1}, "b": {"x": 1}}
    assert read_super_json(unversioned(value, referentialEqualities=equalities)) == value


def test_what_is_nested_too_deep_is_refused() -> None:
    for depth in (900, 3000, 100_000):
        text = '{"json": ' + "[" * depth + "]" * depth + "}"
        with suppress(InvalidPayload):
            read_super_json(text)


def test_the_type_of_a_payload_says_how_it_is_read() -> None:
    assert read_packet('{"a": 1}', "application/json") == {"a": 1}
    assert read_packet('{"a": 1}', "text/plain") == '{"a": 1}'
    assert read_packet({"a": 1}, None) == {"a": 1}
    assert read_packet(None, "application/json") is None
    with pytest.raises(InvalidPayload, match="application/store"):
        read_packet("packet", "application/store")
