"""Values of every type: as JSON, exact, and the same from the stream and from a backfill."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import orjson
import pytest

from tests.capture.rig.source import Source
from triggerkit.change import Record
from triggerkit.consumers.backfill.chunk import ChunkReader
from triggerkit.consumers.backfill.rows import Row
from triggerkit.consumers.definition import TableName
from triggerkit.replication.slot.replication_slot import PUBLICATION
from triggerkit.state.connect import connect

LONG = "7" * 401

#: A type, a value of it in SQL, and what a JSON reader gets for it.
VALUES: list[tuple[str, str, Any]] = [
    ("numeric", "'NaN'", "NaN"),
    ("numeric", "'12345678901234567890.1230'", "12345678901234567890.1230"),
    ("float8", "'-0'", -0.0),
    ("float8", "'NaN'", "NaN"),
    ("float8", "'-Infinity'", "-Infinity"),
    ("float8", "0.1", 0.1),
    ("int8", "9223372036854775807", 9223372036854775807),
    ("date", "'infinity'", "infinity"),
    ("date", "'0044-03-15 BC'", "0044-03-15 BC"),
    ("timestamp", "'-infinity'", "-infinity"),
    ("timestamptz", "'0044-03-15 12:00:00+00 BC'", "0044-03-15 12:00:00+00 BC"),
    ("timestamptz", "'2026-01-02 03:04:05.6+02'", "2026-01-02T01:04:05.600000Z"),
    ("int[]", "'{1,NULL,3}'", [1, None, 3]),
    ("int[]", "'[0:1]={7,8}'", [7, 8]),
    ("text[]", """'{{"a,b","NULL"},{NULL,"q\\"q"}}'""", [["a,b", "NULL"], [None, 'q"q']]),
    ("bytea", r"'\x00ff'", r"\x00ff"),
    ("money", "'-1234.5'", "-$1,234.50"),
    ("mood", "'very sad'", "very sad"),
    ("mood[]", "'{ok,NULL,\"very sad\"}'", ["ok", None, "very sad"]),
    ("positive", "7", 7),
    ("positive[]", "'{1,2}'", [1, 2]),
    ("moods", "'{ok}'", ["ok"]),
    ("pair", "'(1,\"a b\")'", '(1,"a b")'),
    ("pair[]", "ARRAY[ROW(1,'x')::pair]", ["(1,x)"]),
    ("int4range", "'[1,5)'", "[1,5)"),
    ("uuid", "'00000000-0000-0000-0000-00000000000A'", "00000000-0000-0000-0000-00000000000a"),
    ("interval", "'1 mon 2 days 03:04:05'", "1 mon 2 days 03:04:05"),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    ("text", "'é'", "é"),
    ("char(3)", "'a'", "a  "),
    ("bool", "true", True),
    ("json", """'{"a": 1,\t"a": 2}'""", {"a": 2}),
    ("jsonb", "'null'", None),
]

TYPES = (
    "CREATE TYPE mood AS ENUM ('ok', 'very sad')",
    "CREATE TYPE pair AS (a int, b text)",
    "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
    "CREATE DOMAIN moods AS mood[]",
)


def row_of_a_backfill(source: Source) -> Row:
    async def read() -> Row:
        async with await connect(source.url, "test") as connection:
            reader = ChunkReader(connection, TableName("public", "things"), None)
            await reader.open()
            last = await reader.last_place(nulls=False)
            [row] = (await reader.read(None, last, nulls=False)).rows
            return row

    return asyncio.run(read())


def read_by_a_backfill(source: Source) -> Record:
    return row_of_a_backfill(source).record


def make(source: Source) -> None:
    source.execute(*TYPES)
    columns = ", ".join(f"c{number} {kind}" for number, (kind, _, _) in enumerate(VALUES))
    source.execute(f"CREATE TABLE things (id int PRIMARY KEY, {columns}, long jsonb)")
    source.follow("things")
    values = ", ".join(value for _, value, _ in VALUES)
    source.execute(f"INSERT INTO things VALUES (1, {values}, '{{\"n\": {LONG}}}')")


def test_every_type_is_json_and_exact(source: Source) -> None:
    make(source)
    [change] = source.changes()
    text = orjson.dumps(change.record)
    # A reader that holds all numbers for floats would lose what no float holds: the text is exact.
    assert f'"n": {LONG}'.encode() in text
    assert b'"c2":-0.0' in text
    record = json.loads(text, parse_constant=pytest.fail)
    found = [record[f"c{number}"] for number in range(len(VALUES))]
    assert found == [expected for _, _, expected in VALUES]


def test_stream_and_backfill_give_the_same_values(source: Source) -> None:
    make(source)
    [change] = source.changes()
    assert orjson.dumps(change.record) == orjson.dumps(read_by_a_backfill(source))


GENERATED = (
    "CREATE TABLE things (id int PRIMARY KEY, a int, "
    "twice int GENERATED ALWAYS AS (a * 2) STORED{more})"
)


def test_generated_columns_are_in_both_stream_and_backfill_or_in_neither(source: Source) -> None:
    virtual = ", thrice int GENERATED ALWAYS AS (a * 3) VIRTUAL" if source.version >= 18 else ""
    source.execute(GENERATED.format(more=virtual))
    source.follow("things")
    source.execute("INSERT INTO things VALUES (1, 5)", "UPDATE things SET a = 6")
    _, update = source.changes()
    stored = {"twice": 12} if source.version >= 18 else {}
    assert update.record == {"id": 1, "a": 6, **stored} == read_by_a_backfill(source)


def test_generated_columns_that_a_publication_leaves_out_are_in_neither(source: Source) -> None:
    source.execute(
        GENERATED.format(more=""),
        f"CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES",
    )
    source.follow("things")
    source.execute("INSERT INTO things VALUES (1, 5)")
    [insert] = source.changes()
    assert insert.record == {"id": 1, "a": 5} == read_by_a_backfill(source)


def test_columns_that_a_publication_does_not_list_are_in_neither(source: Source) -> None:
    if source.version < 15:
        pytest.skip("publications list columns from Postgres 15 on")
    source.execute(
        "CREATE TABLE things (id int PRIMARY KEY, secret text, a int)",
        f"CREATE PUBLICATION {PUBLICATION} FOR TABLE things (id, a)",
    )
    source.follow("things")
    source.execute("INSERT INTO things VALUES (1, 'x', 5)")
    [insert] = source.changes()
    assert insert.record == {"id": 1, "a": 5} == read_by_a_backfill(source)


def test_a_key_with_more_columns_in_its_index_is_read_by_its_own_columns(source: Source) -> None:
    source.execute("CREATE TABLE things (v text, id int, PRIMARY KEY (id) INCLUDE (v))")
    source.follow("things")
    source.execute("INSERT INTO things VALUES ('x', 1)")
    [change] = source.changes()
    assert change.key == ("1",) == row_of_a_backfill(source).key
