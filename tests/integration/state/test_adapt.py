"""Lists arrive in Postgres as they are, whatever is in them, and its JSON is read as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triggerkit.state.connect import connect_blocking, pinned

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
ODD = st.sampled_from(["", "NULL", "null", "{}", '"', "\\", '\\"', ",", " ", "a,b", '","'])


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with connect_blocking(pinned(database_url, "lists")) as connection:
        yield connection


def arrived(connection: psycopg.Connection, kind: str, values: list[Any]) -> Any:
    row = connection.execute(f"SELECT %s::{kind}[]", [values]).fetchone()
    assert row is not None
    return row[0]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.none() | ODD | TEXT, max_size=6))
def test_texts_arrive_as_they_are(connection: psycopg.Connection, values: list[str | None]) -> None:
    assert arrived(connection, "text", values) == values


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=6))
def test_integers_arrive_as_they_are(
    connection: psycopg.Connection, values: list[int | None]
) -> None:
    assert arrived(connection, "bigint", values) == values


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.none() | st.floats(allow_nan=False), max_size=6))
def test_floats_arrive_as_they_are(
    connection: psycopg.Connection, values: list[float | None]
) -> None:
    assert arrived(connection, "float", values) == values


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", [["a", "b"], ["c", None]]),
        ("bool", [True, None, False]),
        ("bytea", [b"\0", b'"\\']),
        ("text", []),
        ("text", [None, None]),
    ],
)
def test_other_lists_arrive_as_they_are(
    connection: psycopg.Connection, kind: str, values: list[Any]
) -> None:
    assert arrived(connection, kind, values) == values


@pytest.mark.parametrize("values", [["\0"], ["a\0b"], ["a", "\0"], [None, "\0"], ["", "\0", ""]])
def test_a_nul_is_refused_before_it_is_sent(
    connection: psycopg.Connection, values: list[str | None]
) -> None:
    with pytest.raises(psycopg.DataError, match="NUL"):
        arrived(connection, "text", values)


@pytest.mark.parametrize("values", [["\ud800"], [None, "\ud800"]])
def test_a_lone_surrogate_is_refused_before_it_is_sent(
    connection: psycopg.Connection, values: list[str | None]
) -> None:
    with pytest.raises(UnicodeEncodeError):
        arrived(connection, "text", values)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, 2.5, -0.0, null, true, "\\u00e4\\ud83d\\ude00"], "b": {}}',
        "123456789012345678901234567890",
        "1e400",
        "0.1",
        '"\\ud800"',
    ],
)
def test_json_is_read_as_python_reads_it(connection: psycopg.Connection, text: str) -> None:
    row = connection.execute("SELECT %s::json", [text]).fetchone()
    assert row is not None
    assert repr(row[0]) == repr(json.loads(text))


def test_deep_json_is_read_as_python_reads_it(connection: psycopg.Connection) -> None:
    text = "[" * 700 + "]" * 700
    row = connection.execute("SELECT %s::jsonb", [text]).fetchone()
    assert row is not None
    assert row[0] == json.loads(text)
