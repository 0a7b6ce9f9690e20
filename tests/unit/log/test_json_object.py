"""Objects whose values may be JSON that no parser takes."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerkit.log.json_object import (
    PAYLOAD_LEVELS,
    Unreadable,
    read_object,
    show_object,
    show_value,
    split_object,
)

#: What Postgres takes as json and a parser of Python's refuses.
UNREADABLE = [
    rb'"\ud800"',
    rb'{"a":"\udfff","b":[1,2]}',
    b"1e400",
    b"1" * 5000,
    b"[" * 2000 + b"]" * 2000,
    b'{"a":' * 2000 + b"1" + b"}" * 2000,
]

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("value", UNREADABLE, ids=range(len(UNREADABLE)))
def test_a_value_that_cannot_be_read_leaves_the_others_readable(value: bytes) -> None:
    record = b'{"id":7,"doc":%b,"name":"\\"},:{","list":[1,{"a":"]"}]}' % value
    assert read_object(record) == {
        "id": 7,
        "doc": Unreadable(value),
        "name": '"},:{',
        "list": [1, {"a": "]"}],
    }
    assert split_object(record)["doc"] == value


@given(st.dictionaries(st.text(), _json), st.sampled_from(UNREADABLE), st.text())
def test_every_member_is_found_beside_one_that_cannot_be_read(
    members: dict[str, object], value: bytes, name: str
) -> None:
    text = orjson.dumps({**members, name: orjson.Fragment(value)})
    assert read_object(text) == {**members, name: Unreadable(value)}


def test_what_is_shown_is_readable_and_not_nested_without_end() -> None:
    body = b'{"record":{"id":7,"a":"\\ud800","b":%b}}' % (b"[" * 500 + b"]" * 500)
    shown = show_object(body, levels=2)
    assert shown["record"] == {"id": 7, "a": r'"\ud800"', "b": "[" * 500 + "]" * 500}


def test_a_payload_of_several_messages_is_shown_to_the_value_that_cannot_be_read() -> None:
    record = b'{"id":7,"a":1e400}'
    payload = b'{"data":[{"record":%b,"metadata":{"n":1}},{"record":null}]}' % record
    shown = {"record": {"id": 7, "a": "1e400"}, "metadata": {"n": 1}}
    assert show_value(payload, PAYLOAD_LEVELS) == {"data": [shown, {"record": None}]}
    assert show_value(b"1e400", PAYLOAD_LEVELS) == "1e400"
    assert show_value(b'{"a":18446744073709551616,"b":[-9223372036854775809,1]}', 3) == {
        "a": "18446744073709551616",
        "b": ["-9223372036854775809", 1],
    }
    exact = b'{"a":18446744073709551615,"b":-9223372036854775808,"c":0.12345678901234567890}'
    assert show_value(exact, 3) == orjson.loads(exact)
    assert show_value(b"[1,1e400]", PAYLOAD_LEVELS) == [1, "1e400"]
