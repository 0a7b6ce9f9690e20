"""Which rows a backfill reads, and in which order: bounds, keys and values of every type."""

from __future__ import annotations

import contextlib

import orjson
import psycopg
import pytest

from tests.integration.consumers.backfill.operator import Operator, Scene, filled, prepared
from tests.integration.pipeline import execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.backfill.chunk import TARGET_BYTES, ChunkReader
from triggerkit.consumers.definition import TableName


def test_a_partial_backfill_reads_from_its_bound_on_and_before_the_other(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 100, batch_size=10)
        await execute(
            operator.settings,
            "ALTER TABLE items ADD COLUMN made_at timestamptz",
            "UPDATE items SET made_at = timestamptz '2026-01-01' + id * interval '1 day'"
            " WHERE id <> 35",
        )
        found = await operator.store.start(
            operator.source,
            "test",
            sort_by="made_at",
            from_="2026-01-31",
            until="2026-02-10",
        )
        assert found[0].warning is not None
        assert "CREATE INDEX CONCURRENTLY" in found[0].warning
        async with streaming(operator.settings, receiver):
            done = await operator.until_state(found[0].id, "completed")
        assert await operator.logged("id") == [i for i in range(30, 40) if i != 35]
        assert (done.rows_read, done.rows_estimated, done.percent) == (9, 9, 100.0)

    scene(scenario)


def test_rows_without_a_sort_value_are_read_last_and_equal_values_by_their_key(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.consumers.backfill.chunk.FIRST_ROWS", 7)
    monkeypatch.setattr("triggerkit.consumers.backfill.table.MOST_ROWS", 7)

    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 100)
        await execute(
            operator.settings,
            "ALTER TABLE items ADD COLUMN rank int",
            "UPDATE items SET rank = id / 40 WHERE id % 5 <> 0",
        )
        backfill_id = await operator.start(sort_by="rank")
        async with streaming(operator.settings, receiver):
            await operator.until_state(backfill_id, "completed")
        ranked = sorted((i for i in range(1, 101) if i % 5), key=lambda i: (i // 40, i))
        assert await operator.logged("id") == ranked + [i for i in range(1, 101) if i % 5 == 0]

    scene(scenario)


KEYS = {
    "numeric": ("numeric", "i / 7.0"),
    "uuid": ("uuid", "md5(i::text)::uuid"),
    "bytea": ("bytea", "decode(md5(i::text), 'hex')"),
    "text": ("text", "chr(65 + i % 2 * 32 + i % 26) || i"),
    "enum": ("mood", "(enum_range(NULL::mood))[1 + i % 3]"),
    "a type of an extension": ("vector", "ARRAY[i % 7, i]::vector"),
    "a name with %": ("text", "'100% ' || i"),
    "float": ("float8", "sqrt(i)"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_every_type_are_read_once_each_in_their_order(
    kind: str, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.consumers.backfill.chunk.FIRST_ROWS", 9)
    monkeypatch.setattr("triggerkit.consumers.backfill.table.MOST_ROWS", 9)
    type_name, value = KEYS[kind]

    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await filled(
            operator,
            receiver,
            "CREATE TYPE mood AS ENUM ('sad', 'calm', 'happy')",
            f'CREATE TABLE items ("k%s" {type_name}, n int, PRIMARY KEY ("k%s", n))',
            f"INSERT INTO items SELECT {value}, i FROM generate_series(1, 100) i",
        )
        async with streaming(operator.settings, receiver):
            await operator.until_state(1, "completed")
        cursor = await operator.source.execute('SELECT n FROM public.items ORDER BY "k%s", n')
        assert await operator.logged("n") == [n for (n,) in await cursor.fetchall()]

    scene(scenario)


def test_text_of_another_order_than_its_bytes_is_read_by_that_order(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.consumers.backfill.chunk.FIRST_ROWS", 9)

    async def scenario(operator: Operator, receiver: Receiver) -> None:
        collation = await other_order(operator.source)
        if collation is None:
            pytest.skip("this server has no order of text but that of bytes")
        await filled(
            operator,
            receiver,
            f"CREATE TABLE items (name text COLLATE {collation} PRIMARY KEY, n int)",
            "INSERT INTO items SELECT chr(65 + i % 2 * 32 + i % 26) || i, i"
            " FROM generate_series(1, 100) i",
        )
        async with streaming(operator.settings, receiver):
            await operator.until_state(1, "completed")
        cursor = await operator.source.execute("SELECT n FROM public.items ORDER BY name")
        assert await operator.logged("n") == [n for (n,) in await cursor.fetchall()]

    scene(scenario)


async def other_order(source: psycopg.AsyncConnection) -> str | None:
    """A collation by which `a` is before `B`, if the server was built with any."""
    cursor = await source.execute(
        "SELECT quote_ident(collname) FROM pg_collation WHERE collencoding IN (-1, 6)"
    )
    for (name,) in await cursor.fetchall():
        with contextlib.suppress(psycopg.errors.FeatureNotSupported):
            cursor = await source.execute(f"SELECT 'a' < 'B' COLLATE {name}")
            if await cursor.fetchone() == (True,):
                return str(name)
    return None


def test_a_chunk_is_bounded_by_its_bytes_however_large_its_rows(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 1)
        await execute(
            operator.settings,
            "ALTER TABLE items ADD COLUMN t text",
            # Small in the table, since they compress well.
            "INSERT INTO items (id, t) "
            "SELECT i, repeat('x', 3000000) FROM generate_series(2, 60) i",
        )
        reader = ChunkReader(operator.source, TableName("public", "items"), None)
        await reader.open()
        last, after, seen = await reader.last_place(nulls=False), None, []
        while True:
            chunk = await reader.read(after, last, nulls=False)
            assert chunk.size_bytes < TARGET_BYTES + 4_000_000
            seen += [row.record["id"] for row in chunk.rows]
            if chunk.finished:
                break
            after = chunk.rows[-1].place
        assert seen == [*range(1, 61)]

    scene(scenario)


STRANGE = ["", "\\N", "\\.", "a\tb", "a\nb\r", "\b\f\v", "back\\slash", "\\\\N\\t", "ü \u2028 🙂"]


def test_texts_that_copy_would_escape_are_read_as_they_are(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 0)
        await execute(operator.settings, "ALTER TABLE items ADD COLUMN t text")
        await operator.source.cursor().executemany(
            "INSERT INTO public.items (id, t) VALUES (%s, %s)", [*enumerate([None, *STRANGE])]
        )
        reader = ChunkReader(operator.source, TableName("public", "items"), None)
        await reader.open()
        last = await reader.last_place(nulls=False)
        chunk = await reader.read(None, last, nulls=False)
        read = [orjson.loads(orjson.dumps(r.record))["t"] for r in chunk.rows]
        assert read == [None, *STRANGE]

    scene(scenario)


@pytest.mark.parametrize(
    ("altered", "value"),
    [
        ("DROP COLUMN t", {}),
        ("RENAME t TO u", {"u": 7}),
        ("ALTER t TYPE text USING '\"'", {"t": '"'}),
        ("ADD COLUMN u int DEFAULT 8", {"t": 7, "u": 8}),
    ],
)
def test_rows_have_the_columns_that_their_table_had_as_they_were_read(
    scene: Scene, altered: str, value: dict[str, object]
) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 0)
        await execute(operator.settings, "ALTER TABLE items ADD COLUMN t int")
        await operator.source.execute("INSERT INTO public.items (id, t) VALUES (1, 7)")
        reader = ChunkReader(operator.source, TableName("public", "items"), None)
        await reader.open()
        last = await reader.last_place(nulls=False)
        await execute(operator.settings, f"ALTER TABLE items {altered}")
        [row] = (await reader.read(None, last, nulls=False)).rows
        record = orjson.loads(orjson.dumps(row.record))
        assert {name: record[name] for name in record if name in ("t", "u")} == value

    scene(scenario)
