"""A table that was not published for a while: what nobody captured of it is told as a gap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.capture.rig.project import project
from tests.capture.rig.source import Source
from tests.integration.pipeline import declare, streaming
from tests.receiver import Receiver
from triggerkit.consumers.backfill.store import BackfillStore
from triggerkit.consumers.declare.manage import Consumers
from triggerkit.consumers.definition import TableName, changes
from triggerkit.consumers.gap import Gap, open_gaps
from triggerkit.consumers.health import consumer_health
from triggerkit.replication.slot.replication_slot import PUBLICATION
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.streaming import watching

TABLE = "CREATE TABLE items (id int PRIMARY KEY, v text)"
PUBLISH = f"ALTER PUBLICATION {PUBLICATION} SET (publish ="
PUT_BACK = f"ALTER PUBLICATION {PUBLICATION} ADD TABLE ONLY items"

#: How changes of `items` come to be missing, what the gap says of it, and whether `items` is still
#: captured, or again, without `apply`.
LOSSES: dict[str, tuple[tuple[str, ...], str, bool]] = {
    "made anew": (
        (f"BEGIN; DROP TABLE items; {TABLE}; COMMIT",),
        "was dropped, and another has its name",
        False,
    ),
    "made anew and put back": (
        (f"BEGIN; DROP TABLE items; {TABLE}; {PUT_BACK}; COMMIT",),
        "was dropped, and another has its name",
        True,
    ),
    "swapped by renaming": (
        (
            TABLE.replace("items", "next"),
            "BEGIN; ALTER TABLE items RENAME TO last; ALTER TABLE next RENAME TO items; COMMIT",
        ),
        "is now public.last, and another has its name",
        False,
    ),
    "moved": (
        ("CREATE SCHEMA archive", "ALTER TABLE items SET SCHEMA archive"),
        "the table public.items is now archive.items",
        False,
    ),
    "dropped": (("DROP TABLE items",), "the table public.items was dropped", False),
    "taken out": (
        (f"ALTER PUBLICATION {PUBLICATION} DROP TABLE items",),
        "is not wholly published any more",
        False,
    ),
    "taken out and put back": (
        (f"BEGIN; ALTER PUBLICATION {PUBLICATION} DROP TABLE items; {PUT_BACK}; COMMIT",),
        "was taken out of the publication and put back",
        True,
    ),
    "its updates left out": (
        (f"ALTER PUBLICATION {PUBLICATION} SET (publish = 'insert, delete, truncate')",),
        "is not wholly published any more",
        False,
    ),
    "its updates left out for a while": (
        (f"BEGIN; {PUBLISH} 'insert'); {PUBLISH} 'insert, update, delete, truncate'); COMMIT",),
        "what the publication tells of public.items was changed, maybe for a while",
        True,
    ),
}


@pytest.fixture
def settings(source: Source, database_url: str, redis_url: str) -> Settings:
    """A project on the source, which is looked at often."""
    return project(source, database_url, redis_url)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.05)


async def gaps(settings: Settings) -> list[Gap]:
    async with await connect(settings.state_dsn, "test") as state:
        return [gap for found in (await open_gaps(state)).values() for gap in found]


async def until(check: Callable[[list[Gap]], bool], settings: Settings) -> list[Gap]:
    """Wait for gaps as `check` wants them; nothing announces them."""
    async with asyncio.timeout(30):
        while not check(found := await gaps(settings)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


async def first_look(settings: Settings) -> None:
    async with asyncio.timeout(30), await connect(settings.state_dsn, "test") as state:
        query = "SELECT looked_lsn FROM triggerkit.databases"
        row: Any = await (await state.execute(query)).fetchone()
        first = row[0]
        while row[0] == first:
            await asyncio.sleep(0.02)
            # A look moves only with the WAL.
            async with await connect(settings.source_dsn, "test") as source:
                await source.execute("SELECT pg_logical_emit_message(true, 'other', '')")
            row = await (await state.execute(query)).fetchone()


def test_what_apply_itself_changes_of_the_publication_is_no_gap(
    source: Source, settings: Settings
) -> None:
    if source.version < 18:
        pytest.skip("publications have no option for generated columns before 18")

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            source.execute(TABLE, f"CREATE PUBLICATION {PUBLICATION} FOR TABLE ONLY items")
            await declare(settings, receiver, changes("items"))
            source.execute("ALTER TABLE items ADD w text GENERATED ALWAYS AS (v) STORED")
            await declare(settings, receiver, changes("items"))
            assert source.value("SELECT pubgencols FROM pg_publication") == "s"
            assert await gaps(settings) == []
            source.execute(
                f"ALTER PUBLICATION {PUBLICATION} SET (publish_generated_columns = none)"
            )
            await declare(settings, receiver, changes("items"))
            [gap] = await gaps(settings)
            assert "what the publication tells of public.items was changed" in gap.cause

    asyncio.run(scenario())


@pytest.mark.parametrize("name", LOSSES)
def test_changes_that_were_not_captured_are_a_gap_and_the_others_are_delivered(
    settings: Settings, source: Source, name: str
) -> None:
    statements, cause, is_back = LOSSES[name]

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            source.execute(TABLE, TABLE.replace("items", "others"))
            await declare(settings, receiver, changes("items"), "of_items")
            async with streaming(settings, receiver):
                await first_look(settings)
                source.execute("INSERT INTO items VALUES (1)")
                await receiver.until(lambda: len(receiver.messages) == 1)
                source.execute(*statements)
                (gap,) = await until(bool, settings)
                assert gap.kind == "table"
                assert gap.table == "public.items"
                assert cause in gap.cause
                assert gap.from_lsn is not None
                assert (gap.to_lsn is not None) == is_back == (gap.ended_at is not None)
                if is_back:
                    source.execute("INSERT INTO items VALUES (2)")
                    await receiver.until(lambda: len(receiver.messages) == 2)
                await assert_shown(settings, is_back)

    asyncio.run(scenario())


async def assert_shown(settings: Settings, is_over: bool) -> None:
    async with await connect(settings.state_dsn, "test") as state:
        (health,) = await consumer_health(state)
        (problem,) = [p for p in health.problems if p.name == "gap"]
        assert problem.severity == "error"
        assert "changes of public.items are missing" in problem.detail
        again = "triggerkit backfill start of_items --table public.items"
        assert again in problem.remedy
        assert problem.remedy.startswith("triggerkit apply") is not is_over
        assert "triggerkit consumers accept-gap of_items" in problem.remedy
        assert len(health.gaps) == 1
        cursor = await state.execute("SELECT count(*) FROM triggerkit.backfills")
        assert await cursor.fetchone() == (0,)


def test_apply_says_what_it_adds_again_and_a_whole_backfill_closes_the_gap(
    settings: Settings, source: Source
) -> None:
    """Without a stream that looked: `apply` itself sees it."""

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            source.execute(TABLE)
            await declare(settings, receiver, changes("items"))
            source.execute("DROP TABLE items", TABLE, "INSERT INTO items VALUES (1, 'lost')")
            said = "\n".join(await declare(settings, receiver, changes("items")))
            assert "changes of public.items are missing for test" in said
            assert "triggerkit backfill start test --table public.items" in said
            (gap,) = await gaps(settings)
            assert gap.from_lsn is not None
            assert gap.to_lsn is not None
            assert gap.from_lsn <= gap.to_lsn
            assert gap.relation_oid == source.value("SELECT 'items'::regclass::oid::bigint")
            assert "missing" not in "\n".join(await declare(settings, receiver, changes("items")))
            async with streaming(settings, receiver):
                source.execute("INSERT INTO items VALUES (2)")
                await receiver.until(lambda: len(receiver.messages) == 1)
                async with (
                    await connect(settings.state_dsn, "test") as state,
                    await connect(settings.source_dsn, "test") as connection,
                ):
                    tables = [TableName("public", "items")]
                    await BackfillStore(state, "test").start(connection, "test", tables)
                await until(lambda found: not found, settings)
                await receiver.until(lambda: len(receiver.messages) == 3)
            assert {m["record"]["id"] for m in receiver.messages} == {1, 2}

    asyncio.run(scenario())


def test_an_accepted_gap_is_closed_and_comes_back_with_the_next_loss_only(
    settings: Settings, source: Source
) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            source.execute(TABLE)
            await declare(settings, receiver, changes("items"))
            async with streaming(settings, receiver):
                await first_look(settings)
                source.execute(f"ALTER PUBLICATION {PUBLICATION} DROP TABLE items")
                await until(bool, settings)
                async with await connect(settings.state_dsn, "test") as state:
                    consumers = Consumers(state, "test")
                    assert await consumers.accept_gap(await consumers.find("test")) == 1
                await first_look(settings)
                assert await gaps(settings) == []
                source.execute(PUT_BACK)
                (gap,) = await until(bool, settings)
                assert gap.ended_at is not None

    asyncio.run(scenario())


def test_a_name_that_was_another_for_a_moment_is_a_gap_too(
    settings: Settings, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two looks: the stream itself tells of it, by the relation's OID."""
    monkeypatch.setattr(watching, "LOOK_S", 3600)

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            source.execute(TABLE)
            await declare(settings, receiver, changes("items"))
            async with streaming(settings, receiver):
                source.execute("INSERT INTO items VALUES (1)")
                await receiver.until(lambda: len(receiver.messages) == 1)
                source.execute(
                    "ALTER TABLE items RENAME TO away",
                    "INSERT INTO away VALUES (2)",
                    "ALTER TABLE away RENAME TO items",
                    "INSERT INTO items VALUES (3)",
                )
                await receiver.until(lambda: len(receiver.messages) == 2)
                (gap,) = await until(bool, settings)
                assert gap.cause == "the table that was public.items became public.away"
                assert gap.ended_at is not None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (
            "ALTER TABLE items DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (other)",
            "its primary key was changed",
        ),
        ("ALTER TABLE items ALTER id TYPE numeric(9, 2)", "the type of id, of its key, was"),
    ],
    ids=["other columns", "another type"],
)
def test_rows_that_were_given_other_keys_are_a_gap(
    settings: Settings, source: Source, change: str, cause: str
) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            source.execute("CREATE TABLE items (id int PRIMARY KEY, other int NOT NULL)")
            await declare(settings, receiver, changes("items"))
            async with streaming(settings, receiver):
                source.execute("INSERT INTO items VALUES (1, 7)")
                await receiver.until(lambda: len(receiver.messages) == 1)
                source.execute(change, "INSERT INTO items VALUES (2, 8)")
                await receiver.until(lambda: len(receiver.messages) == 2)
                (gap,) = await until(bool, settings)
                assert gap.kind == "key"
                assert cause in gap.cause

    asyncio.run(scenario())


@pytest.mark.parametrize("change", ["RENAME id TO number", "ALTER id TYPE bigint", "ADD more int"])
def test_what_leaves_the_rows_their_keys_is_no_gap(
    settings: Settings, source: Source, change: str
) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            source.execute(TABLE)
            await declare(settings, receiver, changes("items"))
            async with streaming(settings, receiver):
                source.execute("INSERT INTO items VALUES (1)", f"ALTER TABLE items {change}")
                source.execute("INSERT INTO items VALUES (2)")
                await receiver.until(lambda: len(receiver.messages) == 2)
                await first_look(settings)
                assert await gaps(settings) == []

    asyncio.run(scenario())


def test_a_partition_that_is_attached_with_rows_is_a_gap_and_a_new_one_is_none(
    settings: Settings, source: Source
) -> None:
    if source.version < 13:
        pytest.skip("Postgres 13 publishes partitions under their table's name first")

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            source.execute(
                "CREATE TABLE items (id int PRIMARY KEY) PARTITION BY RANGE (id)",
                "CREATE TABLE items_0 PARTITION OF items FOR VALUES FROM (0) TO (10)",
            )
            await declare(settings, receiver, changes("items"))
            async with streaming(settings, receiver):
                await first_look(settings)
                source.execute(
                    "CREATE TABLE items_1 PARTITION OF items FOR VALUES FROM (10) TO (20)",
                    "CREATE TABLE items_2 (LIKE items INCLUDING ALL)",
                    "ALTER TABLE items ATTACH PARTITION items_2 FOR VALUES FROM (20) TO (30)",
                    "INSERT INTO items VALUES (11), (21)",
                    "CREATE TABLE items_3 (LIKE items INCLUDING ALL)",
                )
                await receiver.until(lambda: len(receiver.messages) == 2)
                await first_look(settings)
                assert await gaps(settings) == []
                source.execute(
                    "INSERT INTO items_3 VALUES (31)",
                    "ALTER TABLE items ATTACH PARTITION items_3 FOR VALUES FROM (30) TO (40)",
                )
                (gap,) = await until(bool, settings)
                assert gap.cause.startswith("public.items_3 was attached as a partition, with rows")

    asyncio.run(scenario())


def test_a_table_that_must_not_be_published_any_more_is_told_of(
    settings: Settings, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            source.execute(TABLE)
            await declare(settings, receiver, changes("items"))
            async with streaming(settings, receiver):
                await first_look(settings)
                source.execute("ALTER TABLE items REPLICA IDENTITY NOTHING")
                async with asyncio.timeout(30):
                    while "would break its own" not in caplog.text:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)

    asyncio.run(scenario())
