"""Backfills are started whole and in part, paused, resumed and canceled, several at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.consumers.backfill.operator import TABLE, Operator, operating
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.backfill import scheduler, throttle
from triggerkit.consumers.definition import TableName, changes, rows
from triggerkit.errors import ConfigurationError, TriggerkitError, UnknownConsumer
from triggerkit.settings import Settings


@pytest.fixture
def scene(settings: Settings) -> Callable[[Callable[[Operator, Receiver], Awaitable[None]]], None]:
    """Runs a scenario with a receiver and an operator."""

    def run(scenario: Callable[[Operator, Receiver], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with Receiver.start() as receiver, operating(settings) as operator:
                await scenario(operator, receiver)

        asyncio.run(whole())

    return run


Scene = Callable[[Callable[[Operator, Receiver], Awaitable[None]]], None]


def keys(receiver: Receiver) -> list[str]:
    return [m["metadata"]["record_pks"][0] for m in receiver.messages]


async def prepared(
    operator: Operator, receiver: Receiver, count: int, table: str = TABLE, **options: Any
) -> None:
    """A table of so many rows, and a consumer that starts at the end."""
    await execute(
        operator.settings,
        table,
        f"INSERT INTO items (id) SELECT i FROM generate_series(1, {count}) i",
    )
    await declare(operator.settings, receiver, rows("items", start="end", **options))


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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"consumer": "nobody"}, ["nobody", "there are test"]),
        ({"tables": [TableName("public", "other")]}, ["public.other", "public.items"]),
        ({"sort_by": "colour"}, ["colour", "id, version, name"]),
        ({"sort_by": "version", "from_": "blue"}, ["version", "integer", "'blue'"]),
        ({"from_": "3"}, ["--sort-by"]),
        ({"rows_per_s": 0}, ["1 or more"]),
    ],
    ids=["consumer", "table", "column", "bound", "no column", "rate"],
)
def test_what_cannot_be_read_is_refused_by_name(
    scene: Scene, options: dict[str, Any], words: list[str]
) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 1)
        with pytest.raises((ConfigurationError, UnknownConsumer)) as refused:
            await operator.start(**options)
        assert all(word in str(refused.value) for word in words), refused.value
        assert await operator.store.list(all_=True) == []

    scene(scenario)


def test_a_second_backfill_of_a_table_waits_for_the_end_of_the_first(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 1)
        first = await operator.start()
        with pytest.raises(TriggerkitError, match=f"backfill {first} of public.items"):
            await operator.start()
        with pytest.raises(TriggerkitError, match=r"is active: it cannot be resumed"):
            await operator.store.resume(first)
        await operator.store.cancel(first)
        second = await operator.start()
        with pytest.raises(TriggerkitError, match=r"is canceled: it cannot be paused"):
            await operator.store.pause(first)
        with pytest.raises(TriggerkitError, match=f"no backfill 999; open are: {second}"):
            await operator.store.pause(999)
        cursor = await operator.state.execute(
            "SELECT action, detail ->> 'backfill' FROM triggerkit.audit "
            "WHERE action LIKE 'backfill%' ORDER BY id"
        )
        assert await cursor.fetchall() == [
            ("backfill start", str(first)),
            ("backfill cancel", str(first)),
            ("backfill start", str(second)),
        ]

    scene(scenario)


def test_a_paused_backfill_reads_no_more_and_goes_on_where_it_was(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 3_000, batch_size=100)
        backfill_id = await operator.start(rows_per_s=1_000)
        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill_id, 1)
            await operator.store.pause(backfill_id)
            await operator.until_closed(backfill_id)
            read = (await operator.one(backfill_id)).rows_read
            assert 0 < read < 3_000
            # Another backfill runs through meanwhile: were the paused one read, it would move.
            await declare(operator.settings, receiver, rows("items"), name="other")
            await operator.until_state(backfill_id + 1, "completed")
            assert (await operator.one(backfill_id)).rows_read == read
            await operator.store.resume(backfill_id)
            done = await operator.until_state(backfill_id, "completed")
        assert (done.rows_read, done.rows_logged) == (3_000, 3_000)

    scene(scenario)


def test_when_changed_is_off_exactly_while_rows_are_read(scene: Scene) -> None:
    """The span closes where reading ended, when it was paused, and opens again over the pause."""

    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 1_000, when_changed=["name"])
        backfill_id = await operator.start(rows_per_s=300)

        async def version_set(row: int, version: int) -> None:
            await execute(
                operator.settings, f"UPDATE items SET version = {version} WHERE id = {row}"
            )

        async def update_arrives(row: int, version: int) -> None:
            await version_set(row, version)
            await receiver.until(lambda: (str(row), version) in updates(receiver))

        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill_id, 1)
            await update_arrives(1, 1)
            await operator.store.pause(backfill_id)
            await operator.until_closed(backfill_id)
            first, closed = await operator.span(backfill_id)
            assert first <= closed
            await version_set(1, 2)
            await execute(operator.settings, "UPDATE items SET name = 'seen' WHERE id = 1")
            await receiver.until(lambda: any(m["record"]["name"] for m in receiver.messages))
            assert ("1", 2) not in updates(receiver)[:-1]
            await operator.store.resume(backfill_id)

            async def reopened() -> bool:
                return await operator.span(backfill_id) == (first, None)

            await operator.until(reopened)
            await operator.until_read(backfill_id, 600)
            await update_arrives(1, 3)
            await operator.store.cancel(backfill_id)
            await operator.until_closed(backfill_id)
            again, end = await operator.span(backfill_id)
            cursor = await operator.state.execute(
                "SELECT max(position) FROM triggerkit.events WHERE backfill_id = %s", [backfill_id]
            )
            last = await cursor.fetchone()
        assert again == first
        assert last is not None
        assert last[0] <= end

    scene(scenario)


def updates(receiver: Receiver) -> list[tuple[str, int]]:
    return [
        (m["metadata"]["record_pks"][0], m["record"]["version"])
        for m in receiver.messages
        if m["action"] == "update"
    ]


def test_what_is_paused_while_no_stream_runs_is_closed_by_the_next_one(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 3_000, batch_size=100)
        backfill_id = await operator.start(rows_per_s=1_000)
        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill_id, 1)
        await operator.store.pause(backfill_id)
        assert (await operator.span(backfill_id))[1] is None
        async with streaming(operator.settings, receiver):
            await operator.until_closed(backfill_id)
        assert (await operator.one(backfill_id)).state == "paused"

    scene(scenario)


def test_a_failed_backfill_tells_why_and_can_be_resumed(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 10)
        backfill_id = await operator.start(sort_by="version")
        await execute(operator.settings, "ALTER TABLE items RENAME version TO v")
        async with streaming(operator.settings, receiver):
            failed = await operator.until_state(backfill_id, "failed")
            assert "no column 'version'" in str(failed.error)
            await execute(operator.settings, "ALTER TABLE items RENAME v TO version")
            await operator.store.resume(backfill_id)
            done = await operator.until_state(backfill_id, "completed")
        assert (done.rows_read, done.error) == (10, None)

    scene(scenario)


def test_rows_that_a_policy_hides_fail_the_backfill_instead_of_missing_in_it(
    scene: Scene, settings: Settings
) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 10)
        role = f"limited_{settings.source_dsn.rpartition('/')[2][:12].replace('?', '_')}"
        await execute(
            settings,
            "ALTER TABLE items ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY few ON items USING (id < 5)",
            f"CREATE ROLE {role} LOGIN REPLICATION",
            f"GRANT USAGE ON SCHEMA public TO {role}",
            f"GRANT SELECT ON items TO {role}",
        )
        backfill_id = await operator.start()
        # Only what reads rows has the role; the rest may do what it always may.
        separator = "&" if "?" in settings.source_dsn else "?"
        limited = Settings.parse(
            {
                **settings.environment(),
                "DATABASE_URL": f"{settings.source_dsn}{separator}options=-c%20role%3D{role}",
                "TRIGGERKIT_STATE_URL": settings.state_dsn,
            }
        )
        try:
            async with streaming(limited, receiver):
                failed = await operator.until_state(backfill_id, "failed")
                assert f'ALTER ROLE "{role}" BYPASSRLS' in str(failed.error)
                await execute(settings, f"ALTER ROLE {role} BYPASSRLS")
                await operator.store.resume(backfill_id)
                assert (await operator.until_state(backfill_id, "completed")).rows_read == 10
        finally:
            await execute(settings, f"DROP OWNED BY {role}", f"DROP ROLE {role}")

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
        await execute(
            operator.settings,
            "CREATE TYPE mood AS ENUM ('sad', 'calm', 'happy')",
            f'CREATE TABLE items ("k%s" {type_name}, n int, PRIMARY KEY ("k%s", n))',
            f"INSERT INTO items SELECT {value}, i FROM generate_series(1, 100) i",
        )
        await declare(operator.settings, receiver, rows("items", batch_size=100))
        async with streaming(operator.settings, receiver):
            await operator.until_state(1, "completed")
        cursor = await operator.source.execute('SELECT n FROM public.items ORDER BY "k%s", n')
        assert await operator.logged("n") == [n for (n,) in await cursor.fetchall()]

    scene(scenario)


def test_several_are_read_at_once_and_the_rest_in_their_turn(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MOST_AT_ONCE", 2)

    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 400, batch_size=100)
        for number in (1, 2, 3):
            definition = changes("items", batch_size=100)
            await declare(operator.settings, receiver, definition, name=f"c{number}")
        ids = [await operator.start(f"c{n}", rows_per_s=200) for n in (1, 2, 3)]
        async with streaming(operator.settings, receiver):
            await operator.until_read(ids[0], 1)
            await operator.until_read(ids[1], 1)
            assert (await operator.span(ids[2]))[0] is None, "the third waits for its turn"
            await operator.store.pause(ids[0])
            await operator.until_read(ids[2], 1)
            assert (await operator.one(ids[1])).state == "active"
            await operator.store.resume(ids[0])
            for backfill_id in ids:
                await operator.until_state(backfill_id, "completed")

    scene(scenario)


def test_a_backfill_waits_for_a_consumer_that_does_not_follow(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "MOST_OUTSTANDING_ROWS", 1_000)
    monkeypatch.setattr("triggerkit.consumers.backfill.table.MOST_ROWS", 200)

    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 4_000, batch_size=100)
        go_on = asyncio.Event()

        async def slow(_received: Any) -> Response:
            await go_on.wait()
            return JSONResponse({})

        receiver.answer = slow
        backfill_id = await operator.start()
        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill_id, 1_001)
        # The next stream finds in the log what the one before has put there.
        async with streaming(operator.settings, receiver):
            # Another one reads the whole table meanwhile: its consumer follows.
            await declare(operator.settings, receiver, rows("items"), name="paused")
            await operator.until_read(backfill_id + 1, 1_001)
            waiting = await operator.one(backfill_id)
            assert waiting.rows_read <= 1_200
            assert waiting.state == "active"
            go_on.set()
            await operator.until_state(backfill_id, "completed")
            await receiver.until(lambda: len(set(keys(receiver))) == 4_000)

    scene(scenario)


def test_progress_tells_rows_rate_and_remaining_time(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 2_000, batch_size=100)
        backfill_id = await operator.start(rows_per_s=500)
        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill_id, 700)
            progress = await operator.one(backfill_id)
            assert progress.rows_estimated == 2_000
            assert 35 <= progress.percent < 100
            assert progress.rows_per_s is not None
            assert 100 < progress.rows_per_s < 1_000, "the limit is 500"
            assert progress.eta_s is not None
            assert 0 < progress.eta_s < 20

    scene(scenario)


def test_text_of_another_order_than_its_bytes_is_read_by_that_order(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.consumers.backfill.chunk.FIRST_ROWS", 9)

    async def scenario(operator: Operator, receiver: Receiver) -> None:
        collation = await other_order(operator.source)
        if collation is None:
            pytest.skip("this server has no order of text but that of bytes")
        await execute(
            operator.settings,
            f"CREATE TABLE items (name text COLLATE {collation} PRIMARY KEY, n int)",
            "INSERT INTO items SELECT chr(65 + i % 2 * 32 + i % 26) || i, i"
            " FROM generate_series(1, 100) i",
        )
        await declare(operator.settings, receiver, rows("items", batch_size=100))
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
