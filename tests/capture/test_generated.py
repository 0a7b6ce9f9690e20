"""Generated columns: publishing a table that has some never breaks its own UPDATE and DELETE."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import psycopg
import pytest

from tests.capture.rig.source import Source
from triggerkit.consumers.backfill.chunk import ChunkReader
from triggerkit.consumers.declare.resolve import resolve
from triggerkit.consumers.definition import ConsumerDefinition, TableName, changes
from triggerkit.consumers.filters.filter import Filter
from triggerkit.errors import ConfigurationError, PreflightFailed
from triggerkit.replication.publication.ensure import ensure_publication
from triggerkit.replication.slot.replication_slot import PUBLICATION
from triggerkit.state.connect import connect

STORED = "twice int GENERATED ALWAYS AS (n * 2) STORED"
VIRTUAL = "twice int GENERATED ALWAYS AS (n * 2) VIRTUAL"
KEY = "id int PRIMARY KEY, n int"


@dataclass(frozen=True)
class Case:
    """Statements that make the table `items`, and on which versions it can be followed."""

    made: tuple[str, ...]
    refused_before: int = 0
    refused_from: int = 99
    needs: int = 12


def identity(kind: str, table: str = "items") -> str:
    return f"ALTER TABLE {table} REPLICA IDENTITY {kind}"


UNIQUE = "CREATE UNIQUE INDEX both_of ON items (id, twice)"
ROOT = f"CREATE TABLE items ({KEY}, {STORED}) PARTITION BY RANGE (id)"
PARTITION = "CREATE TABLE items_1 PARTITION OF items FOR VALUES FROM (0) TO (100)"

CASES = {
    "stored": Case((f"CREATE TABLE items ({KEY}, {STORED})",)),
    "stored, full": Case((f"CREATE TABLE items ({KEY}, {STORED})", identity("FULL"))),
    "stored in the key": Case(
        (f"CREATE TABLE items (id int, n int, {STORED}, PRIMARY KEY (twice, id))",),
        refused_before=18,
    ),
    "stored alone in the key": Case(
        (f"CREATE TABLE items (id int, n int, {STORED}, PRIMARY KEY (twice))",), refused_before=18
    ),
    "stored in the key, full": Case(
        (
            f"CREATE TABLE items (id int, n int, {STORED}, PRIMARY KEY (twice, id))",
            identity("FULL"),
        ),
        refused_before=18,
    ),
    "stored in the identity's index": Case(
        (
            f"CREATE TABLE items ({KEY}, {STORED})",
            "ALTER TABLE items ALTER twice SET NOT NULL",
            UNIQUE,
            identity("USING INDEX both_of"),
        )
    ),
    "virtual": Case((f"CREATE TABLE items ({KEY}, {VIRTUAL})",), needs=18),
    "virtual, full": Case(
        (f"CREATE TABLE items ({KEY}, {VIRTUAL})", identity("FULL")), refused_from=18, needs=18
    ),
    "partitioned, stored": Case((ROOT, PARTITION), refused_before=13),
    "partitioned, stored, full": Case(
        (ROOT, PARTITION, identity("FULL"), identity("FULL", "items_1")), refused_before=13
    ),
    "partitioned, a partition without identity": Case(
        (ROOT, PARTITION, identity("NOTHING", "items_1")), refused_from=12
    ),
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest, source: Source) -> Case:
    """A table `items` as the source's version can have it."""
    case = CASES[request.param]
    if source.version < case.needs:
        pytest.skip(f"Postgres {source.version} has no such columns")
    source.execute(*case.made)
    return case


WRITES = (
    "INSERT INTO items (id, n) VALUES (1, 1), (2, 2)",
    "UPDATE items SET n = 3 WHERE id = 1",
    "DELETE FROM items WHERE id = 2",
)


def test_the_applications_own_writes_go_on_whether_the_table_is_followed_or_refused(
    source: Source, case: Case
) -> None:
    refused = source.version < case.refused_before or source.version >= case.refused_from
    if refused:
        with pytest.raises(PreflightFailed, match=r"run: |follow those") as told:
            source.follow("items")
        assert "items" in str(told.value)
        assert source.value("SELECT count(*) FROM pg_publication_tables") == 0
        source.execute(*WRITES)
        return
    source.follow("items")
    source.execute(*WRITES)
    found = source.changes()
    assert all(change.key and change.fault is None for change in found)
    assert [c.action for c in found][-1] == "delete"


def test_a_stored_column_is_the_same_from_the_stream_and_from_a_backfill(source: Source) -> None:
    source.execute(f"CREATE TABLE items ({KEY}, {STORED})")
    source.follow("items")
    source.execute("INSERT INTO items (id, n) VALUES (1, 7)")
    (inserted,) = source.changes()

    async def read() -> object:
        async with await connect(source.url, "test") as connection:
            reader = ChunkReader(connection, TableName("public", "items"), None)
            await reader.open()
            last = await reader.last_place(nulls=False)
            return (await reader.read(None, last, nulls=False)).rows[0].record

    assert asyncio.run(read()) == inserted.record
    assert inserted.record is not None
    assert ("twice" in inserted.record) == (source.version >= 18)


def test_a_publication_of_ours_that_was_made_before_gets_the_stored_columns(
    source: Source,
) -> None:
    if source.version < 18:
        pytest.skip("Postgres 18 publishes generated columns first")
    source.execute(
        f"CREATE PUBLICATION {PUBLICATION} WITH (publish_via_partition_root = true)",
        f"CREATE TABLE items ({KEY}, {STORED})",
        identity("FULL"),
    )
    source.follow("items")
    source.execute(*WRITES)
    assert source.changes()[0].record == {"id": 1, "n": 1, "twice": 2}


def test_a_publication_of_all_tables_that_breaks_one_is_told_and_stays_as_it_is(
    source: Source,
) -> None:
    if source.version < 18:
        pytest.skip("Postgres 18 refuses such updates first")
    source.execute(
        f"CREATE TABLE items ({KEY}, {STORED})",
        identity("FULL"),
        f"CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES",
    )
    remedy = f'ALTER PUBLICATION "{PUBLICATION}" SET (publish_generated_columns = stored);'
    with pytest.raises(PreflightFailed) as told:
        source.follow("items")
    assert remedy in str(told.value)
    source.execute(remedy)
    source.follow("items")
    source.execute(*WRITES)


def test_what_postgres_refuses_for_another_reason_is_rolled_back_and_told(source: Source) -> None:
    if source.version < 15:
        pytest.skip("Postgres 15 has row filters first")
    source.execute(
        f"CREATE TABLE items ({KEY})",
        f"CREATE PUBLICATION {PUBLICATION} FOR TABLE items WHERE (n > 1) "
        "WITH (publish_via_partition_root = true)",
        "CREATE TABLE others (id int PRIMARY KEY)",
    )
    with pytest.raises(PreflightFailed) as told:
        source.follow("items", "others")
    assert "table public.items cannot be published as it is" in str(told.value)
    assert source.value("SELECT string_agg(tablename, ' ') FROM pg_publication_tables") == "items"
    _, _, remedy = str(told.value).partition("run: ")
    source.execute(remedy)
    source.follow("items", "others")
    source.execute(*WRITES)


def test_without_the_privilege_the_catalog_decides_and_that_is_said(source: Source) -> None:
    source.execute(
        f"CREATE TABLE items ({KEY})",
        f"CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES",
        "CREATE ROLE reader LOGIN",
        "GRANT CREATE ON DATABASE postgres TO reader",
    )
    try:
        url = source.url.replace("user=postgres", "user=reader")

        async def follow() -> list[str]:
            async with await connect(url, "test") as connection:
                items = [("public", "items")]
                return (await ensure_publication(connection, PUBLICATION, items)).said

        (said,) = asyncio.run(follow())
        assert "public.items" in said
        assert "catalog alone: reader may not update and delete its rows" in said
        source.execute(identity("NOTHING"))
        with pytest.raises(PreflightFailed, match="REPLICA IDENTITY NOTHING"):
            asyncio.run(follow())
    finally:
        source.execute("DROP OWNED BY reader CASCADE", "DROP ROLE reader")


@pytest.mark.parametrize(
    "options",
    [
        {"sort_by": "twice"},
        {"when_changed": ["twice"]},
        {"group_by": ["twice"]},
        {"filters": [Filter(column="twice", operator=">", value=1)]},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.parametrize("kind", ["stored", "virtual"])
def test_options_on_a_generated_column_are_refused_where_messages_lack_it(
    source: Source, options: dict[str, object], kind: str
) -> None:
    if kind == "virtual" and source.version < 18:
        pytest.skip("Postgres 18 has virtual columns first")
    source.execute(f"CREATE TABLE items ({KEY}, {STORED if kind == 'stored' else VIRTUAL})")
    definition = changes("items", **options)  # type: ignore[arg-type]

    async def resolved() -> ConsumerDefinition:
        async with await connect(source.url, "test") as connection:
            return (await resolve(connection, definition, "test")).definition

    if kind == "stored" and source.version >= 18:
        assert asyncio.run(resolved())
        return
    (field,) = options
    with pytest.raises(ConfigurationError, match=f"test {field}.*'twice'.*not published"):
        asyncio.run(resolved())


def test_updates_are_refused_by_postgres_where_the_oracle_says_so(source: Source) -> None:
    """What the whole matter is about: a publication that was made by hand does break updates."""
    if source.version < 18:
        pytest.skip("Postgres 18 refuses such updates first")
    source.execute(
        f"CREATE TABLE items ({KEY}, {VIRTUAL})",
        identity("FULL"),
        f"CREATE PUBLICATION {PUBLICATION} FOR TABLE items",
    )
    with pytest.raises(psycopg.errors.InvalidColumnReference, match="cannot update"):
        source.execute(*WRITES)


def test_a_key_that_becomes_generated_later_is_a_fault_of_its_changes_and_of_a_backfill(
    source: Source,
) -> None:
    if source.version >= 18:
        pytest.skip("Postgres 18 publishes such a key")
    source.execute(f"CREATE TABLE items ({KEY})")
    source.follow("items")
    source.execute(
        "ALTER TABLE items DROP CONSTRAINT items_pkey",
        f"ALTER TABLE items ADD {STORED}, ADD PRIMARY KEY (twice)",
        *WRITES,
    )
    found = source.changes()
    assert [change.action for change in found] == ["insert", "insert", "update", "delete"]
    for change in found:
        assert change.record is None
        assert change.fault is not None
        assert "primary key of its table is not published" in change.fault

    async def read() -> None:
        async with await connect(source.url, "test") as connection:
            await ChunkReader(connection, TableName("public", "items"), None).open()

    with pytest.raises(PreflightFailed, match=r"'twice' of the primary key of public\.items"):
        asyncio.run(read())
