"""Tables, schemas and columns with names that have to be quoted, on the whole way of a row."""

from __future__ import annotations

import asyncio
from shlex import quote
from typing import Any

import psycopg
import pytest
from psycopg import sql
from starlette.responses import JSONResponse, Response

from tests.integration.parked import fetch, until, until_states
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Received, Receiver
from triggerkit.consumers.backfill.store import BackfillStore
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import TableName, changes, rows
from triggerkit.consumers.gap import LostChanges, mark_lost, open_gaps
from triggerkit.message import Change, Metadata
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.state.migrate import migrations
from triggerkit.supervisor.checks import run_checks
from triggerkit.supervisor.status import read_health

NAMES = [
    TableName("public", "a.b"),
    TableName("my.schema", "c"),
    TableName("a", "b.c"),
    TableName("a.b", "c"),
    TableName("Shop", 'say "hi".50%\\ é:[1]'),
]


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_a_table_of_any_name_is_followed_read_and_told_of(
    settings: Settings, name: TableName
) -> None:
    table = sql.Identifier(*name).as_string(None)
    column = 'odd "col.umn" %s'
    made = (
        f"CREATE SCHEMA IF NOT EXISTS {sql.Identifier(name.schema).as_string(None)}",
        f"CREATE TABLE {table} (id int PRIMARY KEY, {sql.Identifier(column).as_string(None)} text)",
        f"INSERT INTO {table} SELECT i, 'x' FROM generate_series(1, 3) i",
    )

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, *made)
            definition = rows(str(name), sort_by=column, filters=[(column, "==", "x")])
            await declare(settings, receiver, definition)
            async with streaming(settings, receiver):
                await receiver.until(lambda: len(receiver.messages) == 3)
                await execute(settings, f"UPDATE {table} SET id = id + 10")
                await receiver.until(lambda: len(receiver.messages) == 9)
                active = "SELECT count(*) FROM triggerkit.backfills WHERE finished_at IS NULL"
                await until(settings, active, lambda found: found == [(0,)])
            told = {
                (m["metadata"]["table_schema"], m["metadata"]["table_name"])
                for m in receiver.messages
            }
            assert told == {name}
            written = [m for m in receiver.messages if m["action"] != "delete"]
            assert [m["record"][column] for m in written] == ["x"] * 6
        declared = [Declared("test", definition, "/push")]
        failed = [c.name for c in await run_checks(settings, declared) if not c.ok]
        assert not [check for check in failed if "table" in check]
        await gap_is_told(settings, name)

    asyncio.run(scenario())


async def gap_is_told(settings: Settings, name: TableName) -> None:
    async with (
        await connect(settings.state_dsn, "test") as state,
        await connect(settings.source_dsn, "test") as source,
    ):
        lost = LostChanges("table", *name, 1, 1, 1, "a test")
        assert await mark_lost(state, 1, lost) == ["test"]
        [[gap]] = (await open_gaps(state)).values()
        assert gap.table == str(name)
        assert TableName.parse(gap.table) == name
        tables = [TableName.parse(gap.table)]
        [started] = await BackfillStore(state, "test").start(source, "test", tables)
        assert started.table == name
        health: dict[str, Any] = await read_health(settings)
        assert [p["name"] for p in health["consumers"][0]["problems"]] == ["gap"]
        assert f"--table {quote(str(name))}" in health["consumers"][0]["problems"][0]["remedy"]
        [listed] = [b for b in await BackfillStore(state, "test").list() if b.state == "active"]
        assert TableName.parse(listed.table) == name


def test_names_of_before_quotes_were_read_are_those_of_now(database_url: str) -> None:
    """As the migration rewrites what consumers are stored with."""
    with psycopg.connect(database_url) as connection:
        for name in NAMES:
            row = connection.execute("SELECT triggerkit.table_text(%s, %s)", name).fetchone()
            assert row == (str(name),)


def test_rows_of_tables_whose_names_are_alike_without_quotes_do_not_wait_for_each_other(
    settings: Settings,
) -> None:
    async def refuse_bad(received: Received) -> Response:
        is_bad = any(m["record"] == {"id": 1, "v": "bad"} for m in received.messages)
        return JSONResponse({}, 422 if is_bad else 200)

    async def scenario() -> None:
        async with Receiver.start(refuse_bad) as receiver:
            for schema, table in (("a.b", "c"), ("a", "b.c")):
                made = f'CREATE SCHEMA "{schema}"; CREATE TABLE "{schema}"."{table}"'
                await execute(settings, f"{made} (id int PRIMARY KEY, v text)")
            await declare(settings, receiver, changes('"a.b".c', 'a."b.c"'))
            async with streaming(settings, receiver):
                await execute(settings, """INSERT INTO "a.b".c VALUES (1, 'bad')""")
                await until_states(settings, "failing")
                await execute(settings, """INSERT INTO a."b.c" VALUES (1, 'good')""")
                await receiver.until(lambda: tables(receiver).count("b.c") == 1)
                await execute(settings, """TRUNCATE a."b.c" """)
                await receiver.until(lambda: tables(receiver).count("b.c") == 2)
                await until_states(settings, "failing")
            assert Change({}, None, "insert", metadata("a.b", "c")).key == '"a.b".c:["1"]'
            keys = await fetch(settings, "SELECT key FROM triggerkit.parked")
            assert keys == [('"a.b".c:["1"]',)]

    asyncio.run(scenario())


def tables(receiver: Receiver) -> list[str]:
    return [m["metadata"]["table_name"] for m in receiver.messages]


def metadata(schema: str, table: str) -> Metadata:
    return Metadata(table_schema=schema, table_name=table, record_pks=("1",))


def test_what_waited_for_a_row_of_a_table_of_a_name_alike_is_tried_after_the_upgrade(
    settings: Settings,
) -> None:
    parked = (
        (1, "failing", "a.b", "c"),
        (2, "waiting", "a", "b.c"),
        (3, "waiting", "a.b", "c"),
        (4, "waiting", "a", "b.c"),
        (5, "failing", "public", "d"),
        (6, "waiting", "public", "d"),
    )
    [migration] = [m for m in migrations() if m.name == "row_texts"]

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, "CREATE TABLE d (id int PRIMARY KEY)")
            await declare(settings, receiver, changes("d"))
        async with await connect(settings.state_dsn, "test") as state:
            for position, kind, schema, table in parked:
                await state.execute(
                    "INSERT INTO triggerkit.parked (consumer_id, partition, position, key, state, "
                    "reason, body, schema_name, table_name, row_key) "
                    """VALUES (1, 0, %s, %s, %s, '', '{}', %s, %s, '["1"]')""",
                    [position, f'{schema}.{table}:["1"]', kind, schema, table],
                )
            async with state.transaction():
                await state.execute("SET LOCAL search_path = triggerkit, pg_catalog")
                await state.execute(migration.statements)
        found = "SELECT position, state, key FROM triggerkit.parked ORDER BY 1"
        assert await fetch(settings, found) == [
            (1, "failing", '"a.b".c:["1"]'),
            (2, "failing", 'a."b.c":["1"]'),
            (3, "waiting", '"a.b".c:["1"]'),
            (4, "waiting", 'a."b.c":["1"]'),
            (5, "failing", 'public.d:["1"]'),
            (6, "waiting", 'public.d:["1"]'),
        ]

    asyncio.run(scenario())
