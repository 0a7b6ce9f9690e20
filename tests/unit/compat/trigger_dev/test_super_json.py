"""Superjson, as the SDK writes payloads, as JSON for Python."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from triggerkit.compat.trigger_dev.super_json import read_packet, read_super_json
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
    ],
)
def test_what_is_wrong_is_told(text: str, told: str) -> None:
    with pytest.raises(InvalidPayload, match=told):
        read_super_json(text)


def test_the_type_of_a_payload_says_how_it_is_read() -> None:
    assert read_packet('{"a": 1}', "application/json") == {"a": 1}
    assert read_packet('{"a": 1}', "text/plain") == '{"a": 1}'
    assert read_packet({"a": 1}, None) == {"a": 1}
    assert read_packet(None, "application/json") is None
    with pytest.raises(InvalidPayload, match="application/store"):
        read_packet("packet", "application/store")
