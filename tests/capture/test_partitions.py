"""Partitioned tables and children: what each part's own identity carries, and what is refused."""

from __future__ import annotations

import asyncio

import pytest

from tests.capture.rig.source import Source
from triggerkit.change import RowChange
from triggerkit.consumers.backfill.chunk import ChunkReader
from triggerkit.consumers.definition import TableName
from triggerkit.errors import PreflightFailed
from triggerkit.replication.publication.tables import SourceTable, read_tables
from triggerkit.replication.slot.replication_slot import PUBLICATION
from triggerkit.state.connect import connect

ROOT = "CREATE TABLE items (id int PRIMARY KEY, a text, b text) PARTITION BY RANGE (id)"
LOW = "CREATE TABLE items_low PARTITION OF items FOR VALUES FROM (0) TO (10)"
HIGH = "CREATE TABLE items_high PARTITION OF items FOR VALUES FROM (10) TO (20)"


@pytest.fixture
def partitioned(source: Source) -> Source:
    """A table of two partitions, on a server that publishes it under its own name."""
    if source.version < 13:
        pytest.skip("Postgres 13 publishes partitions under their table's name first")
    source.execute(ROOT, LOW, HIGH)
    return source


def full(*tables: str) -> list[str]:
    return [f"ALTER TABLE {table} REPLICA IDENTITY FULL" for table in tables]


def described(source: Source, name: str = "items") -> SourceTable:
    async def read() -> SourceTable:
        async with await connect(source.url, "test") as connection:
            return (await read_tables(connection, [("public", name)]))["public", name]

    return asyncio.run(read())


WRITES = (
    "INSERT INTO items VALUES (1, 'x', 'y'), (11, 'x', 'y'), (2, 'x', NULL)",
    "UPDATE items SET a = 'z' WHERE id IN (1, 11)",
    "UPDATE items SET id = id + 3 WHERE id IN (1, 11)",
    "DELETE FROM items",
)


def old_sides(changes: list[RowChange]) -> dict[str, list[object]]:
    """What the old rows brought: the changes of updates and the records of deletes, by key."""
    found: dict[str, list[object]] = {}
    for change in changes:
        if change.action in ("update", "delete"):
            value = change.changes if change.action == "update" else change.record
            found.setdefault(change.key[0], []).append(value)
    return found


def test_full_on_the_root_alone_invents_no_nulls(partitioned: Source) -> None:
    partitioned.execute(*full("items"))
    partitioned.follow("items")
    partitioned.execute(*WRITES)
    assert old_sides(partitioned.changes()) == {
        "1": [{}, {"id": 1}],
        "11": [{}, {"id": 11}],
        "2": [{"id": 2}],
        "4": [{"id": 4}],
        "14": [{"id": 14}],
    }


def test_full_everywhere_brings_whole_old_rows(partitioned: Source) -> None:
    partitioned.execute(*full("items", "items_low", "items_high"))
    partitioned.follow("items")
    partitioned.execute(*WRITES)
    assert old_sides(partitioned.changes()) == {
        "1": [{"a": "x"}, {"id": 1, "a": "z", "b": "y"}],
        "11": [{"a": "x"}, {"id": 11, "a": "z", "b": "y"}],
        "2": [{"id": 2, "a": "x", "b": None}],
        "4": [{"id": 4, "a": "z", "b": "y"}],
        "14": [{"id": 14, "a": "z", "b": "y"}],
    }


def test_full_on_some_partitions_brings_what_they_wrote(partitioned: Source) -> None:
    partitioned.execute(*full("items", "items_high"))
    partitioned.follow("items")
    partitioned.execute(*WRITES)
    found = old_sides(partitioned.changes())
    assert found["1"] == [{}, {"id": 1}]
    assert found["14"] == [{"id": 14, "a": "z", "b": "y"}]


def test_full_on_the_partitions_alone_brings_whole_old_rows(partitioned: Source) -> None:
    partitioned.execute(*full("items_low", "items_high"))
    partitioned.follow("items")
    partitioned.execute(*WRITES)
    assert old_sides(partitioned.changes())["4"] == [{"id": 4, "a": "z", "b": "y"}]


def test_an_identity_that_was_poorer_when_the_delete_was_written(partitioned: Source) -> None:
    partitioned.execute(*full("items"))
    partitioned.follow("items")
    partitioned.execute(*WRITES[:1], "DELETE FROM items", *full("items_low", "items_high"))
    assert old_sides(partitioned.changes()) == {
        "1": [{"id": 1}],
        "11": [{"id": 11}],
        "2": [{"id": 2}],
    }


def test_a_new_partition_has_an_identity_of_its_own(partitioned: Source) -> None:
    partitioned.execute(*full("items", "items_low", "items_high"))
    partitioned.follow("items")
    assert described(partitioned).partial == ()
    partitioned.execute(
        "CREATE TABLE items_top PARTITION OF items FOR VALUES FROM (20) TO (30)",
        "INSERT INTO items VALUES (21, 'x', 'y'), (1, 'x', 'y')",
        "DELETE FROM items",
    )
    assert old_sides(partitioned.changes())["21"] == [{"id": 21}]
    table = described(partitioned)
    assert table.partial == ("public.items_top",)
    assert table.set_full == 'ALTER TABLE "public"."items_top" REPLICA IDENTITY FULL;'
    partitioned.execute(table.set_full, "INSERT INTO items VALUES (21, 'x', 'y')")
    partitioned.execute("DELETE FROM items")
    assert old_sides(partitioned.changes()) == {"21": [{"id": 21, "a": "x", "b": "y"}]}


def test_a_partition_whose_identity_lacks_the_key_is_refused_and_invents_none(
    partitioned: Source,
) -> None:
    poorer = (
        "ALTER TABLE items_low ALTER a SET NOT NULL",
        "CREATE UNIQUE INDEX by_a ON items_low (a)",
        "ALTER TABLE items_low REPLICA IDENTITY USING INDEX by_a",
    )
    partitioned.follow("items")
    partitioned.execute(*poorer, "INSERT INTO items VALUES (1, 'x', 'y')")
    partitioned.execute("UPDATE items SET a = 'z'", "DELETE FROM items")
    insert, update, delete = partitioned.changes()
    assert (insert.key, update.action, update.key, update.changes) == (("1",), "update", ("1",), {})
    assert delete.fault is not None
    assert "does not carry the primary key" in delete.fault
    with pytest.raises(PreflightFailed, match="has the partition items_low, which has a REPLICA"):
        partitioned.follow("items")


def test_partitions_of_partitions_are_looked_at_too(partitioned: Source) -> None:
    partitioned.execute(
        "CREATE TABLE items_deep PARTITION OF items FOR VALUES FROM (30) TO (50) "
        "PARTITION BY RANGE (id)",
        "CREATE TABLE items_deepest PARTITION OF items_deep FOR VALUES FROM (30) TO (40)",
        "ALTER TABLE items_deepest REPLICA IDENTITY NOTHING",
    )
    with pytest.raises(
        PreflightFailed, match="partition items_deepest, which has REPLICA IDENTITY NOTHING"
    ):
        partitioned.follow("items")


def test_a_partition_of_a_followed_table_cannot_be_followed_beside_it(partitioned: Source) -> None:
    with pytest.raises(PreflightFailed, match=r"items_low .*under the name of public\.items"):
        partitioned.follow("items", "items_low")
    partitioned.follow("items")
    with pytest.raises(PreflightFailed, match=r"items_low .*under the name of public\.items"):
        partitioned.follow("items_low")


def test_a_table_cannot_be_followed_beside_its_partition(partitioned: Source) -> None:
    partitioned.follow("items_low")
    partitioned.execute("INSERT INTO items VALUES (1)")
    assert [c.table for c in partitioned.changes()] == ["items_low"]
    with pytest.raises(PreflightFailed) as told:
        partitioned.follow("items")
    remedy = f'ALTER PUBLICATION "{PUBLICATION}" DROP TABLE "public"."items_low";'
    assert remedy in str(told.value)
    partitioned.execute("INSERT INTO items VALUES (2)")
    assert [c.table for c in partitioned.changes()] == ["items_low"]
    partitioned.execute(remedy)
    partitioned.follow("items")
    partitioned.execute("INSERT INTO items VALUES (3)")
    assert [c.table for c in partitioned.changes()] == ["items"]


def test_rows_of_children_are_not_the_parents_in_either_way(source: Source) -> None:
    source.execute(
        "CREATE TABLE items (id int PRIMARY KEY, a text)",
        "CREATE TABLE more (PRIMARY KEY (id)) INHERITS (items)",
        "INSERT INTO items VALUES (1, 'x')",
        "INSERT INTO more VALUES (2, 'x')",
    )
    source.follow("items")
    assert rows_of_a_backfill(source) == [("1",)]
    source.execute("INSERT INTO items VALUES (3, 'x')", "INSERT INTO more VALUES (4, 'x')")
    source.execute("UPDATE items SET a = 'y'", "TRUNCATE items")
    found = [(c.table, c.action, c.key) for c in source.changes()]
    assert ("items", "insert", ("3",)) in found
    assert {table for table, _, _ in found} == {"items"}
    assert {key for _, action, key in found if action == "update"} == {("1",), ("3",)}
    assert described(source).children == ("public.more",)


def test_a_child_can_be_followed_by_its_own_name(source: Source) -> None:
    source.execute(
        "CREATE TABLE items (id int PRIMARY KEY, a text)",
        "CREATE TABLE more (PRIMARY KEY (id)) INHERITS (items)",
    )
    source.follow("items", "more")
    source.execute("INSERT INTO items VALUES (1)", "INSERT INTO more VALUES (2)")
    assert [(c.table, c.key) for c in source.changes()] == [("items", ("1",)), ("more", ("2",))]


def rows_of_a_backfill(source: Source) -> list[tuple[str, ...]]:
    async def read() -> list[tuple[str, ...]]:
        async with await connect(source.url, "test") as connection:
            reader = ChunkReader(connection, TableName("public", "items"), None)
            await reader.open()
            assert await reader.estimate() == 1
            last = await reader.last_place(nulls=False)
            chunk = await reader.read(None, last, nulls=False)
            assert len(await reader.rows_of([("1",), ("2",)])) == 1
            return [row.key for row in chunk.rows]

    return asyncio.run(read())
