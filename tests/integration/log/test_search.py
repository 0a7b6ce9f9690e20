"""The log is searched backwards for a row, within its time, and says from where."""

from __future__ import annotations

import asyncio
from time import monotonic

import psycopg
import pytest

from triggerkit.log.entry import partition_of
from triggerkit.log.search import Searched, bounds_of, position_of_commit, search_row
from triggerkit.state.connect import connect

ENTRIES = 60_000

#: Every position of one partition, so that a search of it looks at all of them.
FILL = """
INSERT INTO triggerkit.events (position, database_id, partition, schema_name, table_name, key,
    action, commit_lsn, commit_idx, commit_at, record)
SELECT n, %(database)s, %(partition)s, 'public', 'posts',
    CASE WHEN n = ANY (%(of_row)s) THEN %(key)s ELSE 'another' END,
    'update', 1000 + n / 2, n %% 2, now(), '{}' FROM generate_series(1, %(entries)s) n
"""

KEY = '["17"]'

#: One that no row has, which would be in the same partition.
ABSENT = next(
    key
    for key in (f'["{number}"]' for number in range(18, 1000))
    if partition_of("public", "posts", key) == partition_of("public", "posts", KEY)
)


@pytest.fixture
def log(database_url: str, database_id: int) -> tuple[str, int]:
    """A log in which the row was changed at three places."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            f"CREATE TABLE triggerkit.events_{database_id} PARTITION OF triggerkit.events "
            f"FOR VALUES IN ({database_id})"
        )
        connection.execute(
            FILL,
            {
                "database": database_id,
                "partition": partition_of("public", "posts", KEY),
                "of_row": [5, 100, ENTRIES - 1],
                "key": KEY,
                "entries": ENTRIES,
            },
        )
        connection.execute(
            "UPDATE triggerkit.databases SET next_position = %s WHERE id = %s",
            [ENTRIES + 1, database_id],
        )
    return database_url, database_id


def search(log: tuple[str, int], key: str, limit: int, search_s: float = 60.0) -> Searched:
    url, database_id = log

    async def searched() -> Searched:
        async with await connect(url, "test") as connection:
            bounds = await bounds_of(connection, database_id)
            return await search_row(connection, bounds, "public", "posts", key, limit, search_s)

    return asyncio.run(searched())


def test_the_newest_changes_come_first_and_older_ones_are_not_looked_for(
    log: tuple[str, int],
) -> None:
    found = search(log, KEY, 1)
    assert [entry.position for entry in found.entries] == [ENTRIES - 1]
    assert not found.is_whole
    assert 100 < found.searched_from < ENTRIES


def test_all_changes_are_found_and_nothing_is_left_before_them(
    log: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # However busy the machine is.
    monkeypatch.setattr("triggerkit.log.search.MORE_S", 60.0)
    found = search(log, KEY, 5)
    assert [entry.position for entry in found.entries] == [ENTRIES - 1, 100, 5]
    assert (found.searched_from, found.is_whole) == (1, True)
    exactly = search(log, KEY, 3)
    assert [entry.position for entry in exactly.entries] == [ENTRIES - 1, 100, 5]
    assert (exactly.searched_from, exactly.is_whole) == (5, False)


def test_what_is_not_there_is_looked_for_to_the_logs_beginning(log: tuple[str, int]) -> None:
    found = search(log, ABSENT, 5)
    assert (found.entries, found.searched_from, found.is_whole) == ([], 1, True)


def test_a_search_ends_when_its_time_is_over(log: tuple[str, int]) -> None:
    began = monotonic()
    found = search(log, ABSENT, 5, search_s=0.0)
    assert (found.entries, found.is_whole) == ([], False)
    assert found.searched_from == ENTRIES + 1
    assert monotonic() - began < 5


def test_a_change_is_found_by_its_commit(log: tuple[str, int]) -> None:
    url, database_id = log

    async def found(lsn: int, idx: int) -> int | None:
        async with await connect(url, "test") as connection:
            return await position_of_commit(connection, database_id, 0, lsn, idx)

    assert asyncio.run(found(1000 + 777 // 2, 1)) == 777
    assert asyncio.run(found(1000 + 777 // 2, 2)) is None
    assert asyncio.run(found(1, 0)) is None
