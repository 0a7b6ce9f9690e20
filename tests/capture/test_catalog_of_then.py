"""A key that is renamed, retyped, moved or dropped while changes are under way: each change has the
key of its own time, so that a row's changes stay in one order and a copy loses none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.capture.rig.source import Source
from tests.conftest import WEBHOOK_SECRET
from tests.integration.pipeline import declare, streaming
from tests.receiver import Receiver
from triggerkit.change import RowChange
from triggerkit.consumers.backfill.chunk import ChunkReader
from triggerkit.consumers.definition import TableName, changes
from triggerkit.errors import PreflightFailed
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

IDENTITIES = ["DEFAULT", "FULL"]

#: What is done to the table, and whether the default identity allows updates after it.
DDL = {
    "renamed": "ALTER TABLE items RENAME id TO number",
    "retyped": "ALTER TABLE items ALTER id TYPE bigint",
    "renamed and retyped": "ALTER TABLE items RENAME id TO number;"
    "ALTER TABLE items ALTER number TYPE bigint",
    "names swapped": "ALTER TABLE items RENAME id TO x; ALTER TABLE items RENAME v TO id;"
    "ALTER TABLE items RENAME x TO v",
    "a column dropped before it": "ALTER TABLE items DROP filler",
    "a column dropped, renamed": "ALTER TABLE items DROP filler;"
    "ALTER TABLE items RENAME id TO number",
    "a column added, renamed": "ALTER TABLE items ADD more int;"
    "ALTER TABLE items RENAME id TO number",
    "made anew": "ALTER TABLE items DROP CONSTRAINT items_pkey;"
    "ALTER TABLE items ADD PRIMARY KEY (id)",
}

TABLE = "CREATE TABLE items (filler int, id int CONSTRAINT items_pkey PRIMARY KEY, v text)"


@pytest.fixture(params=IDENTITIES)
def followed(request: pytest.FixtureRequest, source: Source) -> Source:
    """A table with a row, followed and read up to now."""
    source.execute(TABLE, f"ALTER TABLE items REPLICA IDENTITY {request.param}")
    source.follow("items")
    source.execute("INSERT INTO items (id, v) VALUES (1, 'a')")
    assert keys(source.changes()) == [("insert", ("1",))]
    return source


def keys(changes: Sequence[RowChange]) -> list[tuple[str, tuple[str, ...]]]:
    assert all(change.fault is None for change in changes)
    return [(change.action, change.key) for change in changes]


def touched(name: str, number: int) -> str:
    """An update that changes no key, by the column's name after the DDL."""
    column = "id" if name == "names swapped" else "v"
    return f"UPDATE items SET {column} = 'after {number}'"


@pytest.mark.parametrize("name", DDL)
def test_the_key_is_that_of_the_change_when_the_catalog_moved_on(
    followed: Source, name: str
) -> None:
    followed.execute("UPDATE items SET v = 'before'", DDL[name], touched(name, 1))
    followed.execute(touched(name, 2))
    assert keys(followed.changes()) == 3 * [("update", ("1",))]


@pytest.mark.parametrize("name", DDL)
def test_the_key_is_that_of_the_change_within_one_transaction(followed: Source, name: str) -> None:
    followed.execute(
        f"BEGIN; UPDATE items SET v = 'before'; {DDL[name]}; {touched(name, 1)}; COMMIT",
        touched(name, 2),
    )
    assert keys(followed.changes()) == 3 * [("update", ("1",))]


@pytest.mark.parametrize("name", DDL)
def test_a_restart_in_between_changes_nothing(followed: Source, name: str) -> None:
    followed.execute("UPDATE items SET v = 'before'")
    before = followed.changes()
    followed.execute(DDL[name], touched(name, 1))
    assert keys([*before, *followed.changes()]) == 2 * [("update", ("1",))]


def test_a_table_that_was_dropped_since_keeps_its_key(followed: Source) -> None:
    followed.execute("UPDATE items SET v = 'b'", "DELETE FROM items", "DROP TABLE items")
    assert keys(followed.changes()) == [("update", ("1",)), ("delete", ("1",))]


def test_a_key_that_was_dropped_is_the_key_still(source: Source) -> None:
    source.execute(TABLE, "ALTER TABLE items REPLICA IDENTITY FULL")
    source.follow("items")
    source.execute("INSERT INTO items (id, v) VALUES (1, 'a')")
    source.changes()
    source.execute(
        "BEGIN; UPDATE items SET v = 'b'; ALTER TABLE items DROP CONSTRAINT items_pkey; COMMIT",
        "UPDATE items SET v = 'c'",
        "DELETE FROM items",
    )
    assert keys(source.changes()) == [*2 * [("update", ("1",))], ("delete", ("1",))]


MOVED = (
    "ALTER TABLE items DROP CONSTRAINT items_pkey; UPDATE items SET filler = 7;"
    "ALTER TABLE items ADD CONSTRAINT items_pkey PRIMARY KEY (filler)"
)


def test_a_key_of_other_columns_holds_from_its_own_transaction_on(followed: Source) -> None:
    is_full = followed.value("SELECT relreplident FROM pg_class WHERE relname = 'items'") == "f"
    moved = MOVED if is_full else MOVED.replace("UPDATE items SET filler = 7;", "")
    followed.execute("UPDATE items SET filler = 7", "UPDATE items SET v = 'before'")
    followed.execute(moved, "UPDATE items SET v = 'after'", "UPDATE items SET v = 'later'")
    found = keys(followed.changes())
    assert found[:2] == 2 * [("update", ("1",))]
    assert found[-2:] == 2 * [("update", ("7",))]
    assert all(action == "update" for action, _ in found)


def test_a_key_of_other_columns_within_one_transaction(followed: Source) -> None:
    followed.execute("UPDATE items SET filler = 7")
    followed.execute(
        "BEGIN; UPDATE items SET v = 'before'; ALTER TABLE items DROP CONSTRAINT items_pkey;"
        "ALTER TABLE items ADD CONSTRAINT items_pkey PRIMARY KEY (filler);"
        "UPDATE items SET v = 'after'; COMMIT"
    )
    found = keys(followed.changes())
    assert found == [*2 * [("update", ("1",))], ("update", ("7",))]


def test_the_order_of_a_keys_columns_outlives_a_renaming(source: Source) -> None:
    for identity in IDENTITIES:
        source.execute(
            "CREATE TABLE pairs (a int, b text, v int, PRIMARY KEY (b, a))",
            f"ALTER TABLE pairs REPLICA IDENTITY {identity}",
        )
        source.follow("pairs")
        source.execute("INSERT INTO pairs VALUES (1, 'x')")
        source.changes()
        source.execute(
            "UPDATE pairs SET v = 1", "ALTER TABLE pairs RENAME b TO z", "UPDATE pairs SET v = 2"
        )
        assert keys(source.changes()) == 2 * [("update", ("x", "1"))]
        source.execute("DROP TABLE pairs")


def test_changes_that_were_never_announced_before_are_read_by_what_they_flag(
    source: Source,
) -> None:
    """Nothing is remembered of a table that was renamed before the first look at it."""
    source.execute(TABLE)
    source.follow("items")
    source.execute(
        "INSERT INTO items (id, v) VALUES (1, 'a')",
        "UPDATE items SET v = 'b'",
        DDL["renamed"],
        "DROP TABLE items",
    )
    assert keys(source.changes()) == [("insert", ("1",)), ("update", ("1",))]


def test_apply_remembers_a_table_before_anything_of_it_is_streamed(
    source: Source, database_url: str, redis_url: str
) -> None:
    """The stream starts for the first time when the key has another name already."""
    settings = Settings.parse(
        {
            "DATABASE_URL": source.url,
            "TRIGGERKIT_STATE_URL": database_url,
            "REDIS_URL": redis_url,
            "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
        }
    )

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            source.execute(TABLE, "ALTER TABLE items REPLICA IDENTITY FULL")
            await declare(settings, receiver, changes("items"))
            source.execute(
                "INSERT INTO items (id, v) VALUES (1, 'a')",
                "UPDATE items SET v = 'b'",
                DDL["renamed"],
                "UPDATE items SET v = 'c'",
            )
            async with streaming(settings, receiver):
                await receiver.until(lambda: len(receiver.messages) == 3)
            found = [(m["action"], m["metadata"]["record_pks"]) for m in receiver.messages]
            assert found == [("insert", ["1"]), ("update", ["1"]), ("update", ["1"])]

    asyncio.run(scenario())


def test_a_backfill_ends_when_the_key_is_changed_under_it(source: Source) -> None:
    source.execute(TABLE, "INSERT INTO items SELECT i, i, 'a' FROM generate_series(1, 300) i")

    async def read() -> None:
        async with await connect(source.url, "test") as connection:
            reader = ChunkReader(connection, TableName("public", "items"), None)
            await reader.open()
            last = await reader.last_place(nulls=False)
            chunk = await reader.read(None, last, nulls=False)
            source.execute(MOVED.replace("UPDATE items SET filler = 7;", ""))
            await reader.read(chunk.rows[-1].place, last, nulls=False)

    with pytest.raises(PreflightFailed, match=r"primary key of public\.items was changed"):
        asyncio.run(read())
