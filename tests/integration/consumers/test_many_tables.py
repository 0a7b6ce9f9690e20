"""What is asked about one table looks at that one, however many others are published."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg

from triggerkit.replication.publication import columns
from triggerkit.replication.sighting import sight_table
from triggerkit.state.connect import connect

MANY = """
DO $$ BEGIN FOR i IN 1..300 LOOP
    EXECUTE format('CREATE TABLE public.t%s (id int PRIMARY KEY, a text, b text)', i);
END LOOP; END $$;
DO $$ BEGIN
    EXECUTE (SELECT 'CREATE PUBLICATION many FOR TABLE ' || string_agg(format('public.t%s', i), ',')
        FROM generate_series(2, 300) i) || ', public.t1 (id, b)';
END $$;
"""

#: Rows of the catalog that one table's columns and publishing are read of.
ENOUGH = 30


def rows_of(node: dict[str, Any]) -> Iterator[int]:
    removed = node.get("Rows Removed by Filter", 0)
    yield int((node["Actual Rows"] + removed) * node["Actual Loops"])
    for child in node.get("Plans", []):
        yield from rows_of(child)


def test_columns_and_sightings_of_one_table_among_many(database_url: str) -> None:
    async def look() -> tuple[Any, Any]:
        async with await connect(database_url, "test") as connection:
            names = [("public", "t1"), ("public", "t7")]
            found = await columns.published_columns(connection, "many", names)
            return found, await sight_table(connection, "many", ("public", "t1"))

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(MANY)
        connection.execute("ANALYZE")
        given = {
            "schemas": ["public"], "names": ["t7"], "publication": "many",
            "has_generated": True, "may_list": True,
        }  # fmt: skip
        row = connection.execute(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {columns._COLUMNS}".encode(), given
        ).fetchone()
    assert row is not None
    assert max(rows_of(row[0][0]["Plan"])) <= ENOUGH
    found, sighting = asyncio.run(look())
    assert list(found["public", "t1"]) == ["id", "b"]
    assert list(found["public", "t7"]) == ["id", "a", "b"]
    assert [name for name, _ in sighting.columns] == ["id", "b"]
