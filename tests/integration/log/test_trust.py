"""From where on a table's entries are sources, as the stream and backfills see the table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from triggerkit.log.trust import Since, Trust, note_sighting
from triggerkit.replication.sighting import Facts, File, Sighting
from triggerkit.state.connect import connect

NAME = ("public", "docs")
BEFORE = Facts("1 700 2 700", (1, 2), (File(10, 10, 0, 0, True),))
AFTER = BEFORE._replace(publication="1 800 2 700")
SEEN = Sighting(10, NAME, (("id", 23), ("body", 25)), ("id",), BEFORE, 100)
OTHER = SEEN._replace(oid=11, lsn=200)


@asynccontextmanager
async def trusting(url: str, database_id: int) -> AsyncIterator[Trust]:
    async with await connect(url, "test") as connection:
        yield Trust(connection, database_id)


def test_what_is_seen_again_moves_nothing_and_is_remembered(
    database_url: str, database_id: int
) -> None:
    async def run() -> None:
        async with trusting(database_url, database_id) as trust:
            await trust.see(SEEN, 5)
            await trust.save()
            await trust.see(SEEN._replace(lsn=300), 50)
            assert trust.is_saved
        async with trusting(database_url, database_id) as trust:
            assert trust.since(NAME) is None
            await trust.see(SEEN._replace(lsn=400), 60)
            assert trust.since(NAME) == Since(5, 100)

    asyncio.run(run())


def test_a_table_that_apply_found_is_known_from_then_on(
    database_url: str, database_id: int
) -> None:
    async def run() -> None:
        async with await connect(database_url, "test") as state:
            await note_sighting(state, database_id, SEEN)
            await note_sighting(state, database_id, SEEN._replace(facts=AFTER, lsn=900))
        async with trusting(database_url, database_id) as trust:
            await trust.see(SEEN._replace(lsn=400), 60)
            assert trust.since(NAME) == Since(0, 100)

    asyncio.run(run())


def test_a_name_that_another_had_is_no_source_though_nothing_else_changed(
    database_url: str, database_id: int
) -> None:
    async def run() -> None:
        async with trusting(database_url, database_id) as trust:
            await trust.see(SEEN, 5)
            await trust.save()
            await trust.see(OTHER, 10)
            await trust.see(SEEN._replace(lsn=300), 20)
            assert trust.since(NAME) == Since(20, 300)
            await trust.save()
        async with trusting(database_url, database_id) as trust:
            await trust.see(OTHER._replace(lsn=400), 30)
            assert trust.since(NAME) == Since(30, 400)

    asyncio.run(run())


def test_a_backfills_rows_are_no_sources_where_it_saw_another_table_or_another_time(
    database_url: str, database_id: int
) -> None:
    async def run() -> None:
        async with trusting(database_url, database_id) as trust:
            await trust.read(SEEN, 5, 8)
            assert trust.since(NAME) == Since(5, 100)
            await trust.read(SEEN, 8, 10)
            assert trust.since(NAME) == Since(5, 100)
            await trust.read(OTHER, 10, 12)
            assert trust.since(NAME) == Since(12, 100)
            await trust.read(SEEN._replace(columns=(("id", 23), ("text", 25))), 12, 14)
            assert trust.since(NAME) == Since(14, 100)
            await trust.read(SEEN._replace(facts=AFTER, lsn=300), 14, 16)
            assert trust.since(NAME) == Since(14, 300)
            await trust.read(SEEN._replace(lsn=200), 16, 18)
            assert trust.since(NAME) == Since(18, 300)

    asyncio.run(run())
