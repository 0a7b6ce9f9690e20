"""What an insert, update, delete or truncate tells of a row, under every replica identity."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from tests.capture.rig.source import Source
from triggerkit.change import RowChange
from triggerkit.errors import PreflightFailed
from triggerkit.replication.publication.ensure import ensure_publication
from triggerkit.replication.slot.replication_slot import PUBLICATION
from triggerkit.state.connect import connect

DOCS = "CREATE TABLE docs (id int PRIMARY KEY, body text, note text)"
STORED_APART = "ALTER TABLE docs ALTER COLUMN body SET STORAGE EXTERNAL"
BODY = "x" * 9000


def actions(changes: list[RowChange]) -> list[tuple[str, tuple[str, ...]]]:
    return [(change.action, change.key) for change in changes]


def test_an_unchanged_large_value_is_not_null_under_the_default_identity(source: Source) -> None:
    source.execute(DOCS, STORED_APART)
    source.follow("docs")
    source.execute(f"INSERT INTO docs VALUES (1, '{BODY}')", "UPDATE docs SET note = 'n'")
    insert, update = source.changes()
    assert insert.record == {"id": 1, "body": BODY, "note": None}
    assert update.record == {"id": 1, "note": "n"}
    assert update.unchanged == ("body",)


def test_an_unchanged_large_value_is_that_of_the_old_row_under_full_identity(
    source: Source,
) -> None:
    source.execute(DOCS, STORED_APART, "ALTER TABLE docs REPLICA IDENTITY FULL")
    source.follow("docs")
    source.execute(f"INSERT INTO docs VALUES (1, '{BODY}')", "UPDATE docs SET note = 'n'")
    _, update = source.changes()
    assert update.record == {"id": 1, "body": BODY, "note": "n"}
    assert update.changes == {"note": None}
    assert update.unchanged == ()


def test_an_insert_and_a_partial_update_of_its_row_are_two_whole_changes(source: Source) -> None:
    source.execute(DOCS)
    source.follow("docs")
    source.execute(
        "BEGIN; INSERT INTO docs VALUES (1, 'b', 'n'); UPDATE docs SET note = 'm'; COMMIT"
    )
    insert, update = source.changes()
    assert insert.record == {"id": 1, "body": "b", "note": "n"}
    assert update.record == {"id": 1, "body": "b", "note": "m"}


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_a_changed_key_is_a_delete_of_the_old_and_an_insert_of_the_new(
    source: Source, identity: str
) -> None:
    source.execute(DOCS, f"ALTER TABLE docs REPLICA IDENTITY {identity}")
    source.follow("docs")
    source.execute("INSERT INTO docs VALUES (1, 'b', 'n')", "UPDATE docs SET id = 2")
    _, *changed = source.changes()
    assert actions(changed) == [("delete", ("1",)), ("insert", ("2",))]
    assert changed[1].record == {"id": 2, "body": "b", "note": "n"}


def test_keys_that_are_swapped_are_deletes_and_inserts_in_order(source: Source) -> None:
    source.execute(DOCS)
    source.follow("docs")
    source.execute(
        "INSERT INTO docs VALUES (1, 'one'), (2, 'two')",
        "BEGIN; UPDATE docs SET id = 3 WHERE id = 1; UPDATE docs SET id = 1 WHERE id = 2;"
        "UPDATE docs SET id = 2 WHERE id = 3; COMMIT",
    )
    swapped = source.changes()[2:]
    assert actions(swapped) == [
        *[("delete", ("1",)), ("insert", ("3",))],
        *[("delete", ("2",)), ("insert", ("1",))],
        *[("delete", ("3",)), ("insert", ("2",))],
    ]


def test_truncate_is_one_event_of_each_table(source: Source) -> None:
    source.execute(DOCS, "CREATE TABLE more (id int PRIMARY KEY)")
    source.follow("docs", "more")
    source.execute(
        "INSERT INTO docs VALUES (1)",
        "TRUNCATE docs",
        "INSERT INTO docs VALUES (2)",
        "TRUNCATE docs, more",
    )
    changes = [(c.table, c.action) for c in source.changes()]
    assert changes[:3] == [("docs", "insert"), ("docs", "truncate"), ("docs", "insert")]
    assert sorted(changes[3:]) == [("docs", "truncate"), ("more", "truncate")]


def test_truncate_cascades_to_the_tables_that_refer_to_it(source: Source) -> None:
    source.execute(DOCS, "CREATE TABLE parts (id int PRIMARY KEY, doc_id int REFERENCES docs (id))")
    source.follow("docs", "parts")
    source.execute("INSERT INTO docs VALUES (1)", "TRUNCATE docs CASCADE")
    changes = [(c.table, c.action) for c in source.changes()]
    assert sorted(changes[1:]) == [("docs", "truncate"), ("parts", "truncate")]


KEYS = [
    ("a int, b text, PRIMARY KEY (b, a)", "1, 'x'", ("x", "1")),
    ("id text PRIMARY KEY", "E'a\\tb \"c\"'", ('a\tb "c"',)),
    (
        "id uuid PRIMARY KEY",
        "'00000000-0000-0000-0000-00000000000a'",
        ("00000000-0000-0000-0000-00000000000a",),
    ),
    ("id mood PRIMARY KEY", "'very sad'", ("very sad",)),
    ("id timestamptz PRIMARY KEY", "'2026-01-02 03:04:05.6+00'", ("2026-01-02 03:04:05.6+00",)),
    ("id date, n numeric, PRIMARY KEY (id, n)", "'2026-01-02', 1.50", ("2026-01-02", "1.50")),
    ("id int, v text, PRIMARY KEY (id) INCLUDE (v)", "1, 'x'", ("1",)),
]


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_a_key_of_any_type_is_its_text_in_key_order(source: Source, identity: str) -> None:
    source.execute("CREATE TYPE mood AS ENUM ('ok', 'very sad')")
    tables = [f"keys_{number}" for number in range(len(KEYS))]
    for table, (columns, _, _) in zip(tables, KEYS, strict=True):
        source.execute(
            f"CREATE TABLE {table} ({columns}); ALTER TABLE {table} ADD COLUMN times int;"
            f"ALTER TABLE {table} REPLICA IDENTITY {identity}"
        )
    source.follow(*tables)
    for table, (_, values, _) in zip(tables, KEYS, strict=True):
        source.execute(
            f"INSERT INTO {table} VALUES ({values})",
            f"UPDATE {table} SET times = 1",
            f"DELETE FROM {table}",
        )
    expected = [(action, key) for _, _, key in KEYS for action in ("insert", "update", "delete")]
    assert actions(source.changes()) == expected


def test_an_identity_by_another_index_that_has_the_key_is_followed(source: Source) -> None:
    source.execute(
        "CREATE TABLE docs (id int PRIMARY KEY, slug text NOT NULL, note text)",
        "CREATE UNIQUE INDEX docs_slug ON docs (slug, id)",
        "ALTER TABLE docs REPLICA IDENTITY USING INDEX docs_slug",
    )
    source.follow("docs")
    source.execute(
        "INSERT INTO docs VALUES (1, 'a')",
        "UPDATE docs SET note = 'n'",
        "UPDATE docs SET slug = 'b'",
        "DELETE FROM docs",
    )
    changes = source.changes()
    assert [c.action for c in changes] == ["insert", "update", "update", "delete"]
    assert {c.key for c in changes} == {("1",)}
    assert changes[3].record == {"id": 1, "slug": "b"}


BY_ANOTHER_COLUMN = (
    "id int PRIMARY KEY, s text NOT NULL UNIQUE);"
    "ALTER TABLE docs REPLICA IDENTITY USING INDEX docs_s_key"
)


@pytest.mark.parametrize(
    ("table", "remedy"),
    [
        ("id int PRIMARY KEY); ALTER TABLE docs REPLICA IDENTITY NOTHING", "REPLICA IDENTITY FULL"),
        ("id int", "ADD PRIMARY KEY"),
        (
            BY_ANOTHER_COLUMN,
            "REPLICA IDENTITY FULL",
        ),
        ("id int PRIMARY KEY DEFERRABLE", "REPLICA IDENTITY FULL"),
    ],
)
def test_a_table_whose_rows_cannot_be_followed_is_refused_with_the_remedy(
    source: Source, table: str, remedy: str
) -> None:
    source.execute(f"CREATE TABLE docs ({table}" + ("" if ");" in table else ")"))
    with pytest.raises(PreflightFailed, match=remedy):
        source.follow("docs")


def test_every_row_is_decoded_by_the_columns_it_was_written_with(source: Source) -> None:
    source.execute("CREATE TABLE docs (id int PRIMARY KEY, a text, b int)")
    source.follow("docs")
    source.execute(
        "INSERT INTO docs VALUES (1, '1', 1)",
        "ALTER TABLE docs ADD COLUMN c text DEFAULT 'c'",
        "INSERT INTO docs VALUES (2, '2', 2)",
        "ALTER TABLE docs DROP COLUMN b",
        "INSERT INTO docs VALUES (3, '3')",
        "ALTER TABLE docs RENAME COLUMN a TO z",
        "INSERT INTO docs VALUES (4, '4')",
        "ALTER TABLE docs ALTER COLUMN z TYPE int USING z::int",
        "INSERT INTO docs VALUES (5, 5)",
        "BEGIN; INSERT INTO docs VALUES (6, 6); ALTER TABLE docs ADD COLUMN d bool;"
        "INSERT INTO docs VALUES (7, 7, 'c', true); COMMIT",
    )
    expected: list[dict[str, Any]] = [
        {"id": 1, "a": "1", "b": 1},
        {"id": 2, "a": "2", "b": 2, "c": "c"},
        {"id": 3, "a": "3", "c": "c"},
        {"id": 4, "z": "4", "c": "c"},
        {"id": 5, "z": 5, "c": "c"},
        {"id": 6, "z": 6, "c": "c"},
        {"id": 7, "z": 7, "c": "c", "d": True},
    ]
    assert [change.record for change in source.changes()] == expected


def test_a_table_that_is_altered_while_it_is_streamed_is_read_by_its_new_columns(
    source: Source,
) -> None:
    source.execute(DOCS)
    source.follow("docs")

    async def scenario() -> list[RowChange]:
        found: list[RowChange] = []
        async with source.capture() as capture:
            for statement in (
                "INSERT INTO docs VALUES (1, 'b')",
                "ALTER TABLE docs DROP COLUMN note; ALTER TABLE docs ADD COLUMN n int[]",
                "INSERT INTO docs VALUES (2, 'c', '{1,2}')",
                "ALTER TABLE docs RENAME TO papers",
                "INSERT INTO papers VALUES (3, 'd', '{}')",
            ):
                source.execute(statement)
                for part in await source.read_all(capture):
                    found += part.changes
        return found

    first, second, third = asyncio.run(scenario())
    assert first.record == {"id": 1, "body": "b", "note": None}
    assert second.record == {"id": 2, "body": "c", "n": [1, 2]}
    assert (third.table, third.record) == ("papers", {"id": 3, "body": "d", "n": []})


PARTITIONED = (
    "CREATE TABLE docs (id int, y int, PRIMARY KEY (id, y)) PARTITION BY RANGE (y)",
    "CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (0) TO (10)",
    "CREATE TABLE docs_2 PARTITION OF docs FOR VALUES FROM (10) TO (20)",
)


def test_changes_of_partitions_come_under_the_partitioned_tables_name(source: Source) -> None:
    source.execute(*PARTITIONED)
    if source.version == 12:
        with pytest.raises(PreflightFailed, match="Postgres 13 or later"):
            source.follow("docs")
        return
    source.follow("docs")
    source.execute(
        "INSERT INTO docs VALUES (1, 1), (2, 11)",
        "UPDATE docs SET y = 12 WHERE id = 1",
        "TRUNCATE docs",
    )
    changes = source.changes()
    assert {change.table for change in changes} == {"docs"}
    assert actions(changes[2:]) == [
        ("delete", ("1", "1")),
        ("insert", ("1", "12")),
        ("truncate", ()),
    ]


def test_partitions_that_are_followed_themselves_come_under_their_own_names(
    source: Source,
) -> None:
    source.execute(*PARTITIONED)
    if source.version == 12:
        source.follow("docs_1", "docs_2")
    else:
        # As a publication is that somebody made without `publish_via_partition_root`.
        source.execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE docs")
        with pytest.raises(PreflightFailed, match="publish_via_partition_root = true"):
            source.follow("docs")
        source.follow("docs_1", "docs_2")
    source.execute("INSERT INTO docs VALUES (1, 1), (2, 11)")
    assert [(c.table, c.key) for c in source.changes()] == [
        ("docs_1", ("1", "1")),
        ("docs_2", ("2", "11")),
    ]


def test_a_new_partition_is_followed_at_once(source: Source) -> None:
    if source.version == 12:
        pytest.skip("Postgres 12 publishes partitions one by one")
    source.execute(*PARTITIONED)
    source.follow("docs")
    source.execute(
        "CREATE TABLE docs_3 PARTITION OF docs FOR VALUES FROM (20) TO (30)",
        "INSERT INTO docs VALUES (1, 21)",
    )
    assert [(c.table, c.key) for c in source.changes()] == [("docs", ("1", "21"))]


def test_rows_of_tables_that_nobody_follows_are_no_changes(source: Source) -> None:
    source.execute(DOCS, "CREATE TABLE other (id int PRIMARY KEY)")
    source.follow("docs")
    source.execute("INSERT INTO other VALUES (1)", "INSERT INTO docs VALUES (1)")
    assert [c.table for c in source.changes()] == ["docs"]


def test_the_role_that_may_not_change_the_publication_is_told_the_statement(
    source: Source,
) -> None:
    source.execute(DOCS, "CREATE ROLE reader LOGIN REPLICATION")
    if source.version < 14:
        source.execute("CREATE SCHEMA triggerkit; GRANT ALL ON SCHEMA triggerkit TO reader")

    async def follow() -> None:
        url = psycopg.conninfo.make_conninfo(source.url, user="reader")
        async with await connect(url, "test") as connection:
            await ensure_publication(connection, PUBLICATION, [("public", "docs")])

    try:
        with pytest.raises(PreflightFailed, match="let a superuser run: CREATE PUBLICATION"):
            asyncio.run(follow())
    finally:
        source.execute("DROP OWNED BY reader; DROP ROLE reader")
