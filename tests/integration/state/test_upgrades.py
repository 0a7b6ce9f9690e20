"""States of released versions, with data in them: they become today's, and their work goes on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.run_state import run_state
from tests.integration.worker_thread import working
from tests.servers import Servers
from triggerkit import task
from triggerkit.settings import Settings
from triggerkit.state.migrate import migrate, migrations

RELEASED = Path(__file__).parent / "released"

#: Migrations that databases of users have: what they say does not change any more.
FROZEN = {
    1: "174c2f3563c013f8c2ef9c9c754ff865fe4c11fe2ecf438494df0f78d992d8fd",
}

#: Everything that makes a schema, in an order of its own.
_SHAPE = """
SELECT 'column', table_name || '.' || column_name,
    concat_ws(' ', data_type, is_nullable, column_default, is_identity, is_generated)
FROM information_schema.columns WHERE table_schema = 'triggerkit' AND table_name !~ '^events_'
UNION ALL
SELECT 'index', c.relname, regexp_replace(pg_get_indexdef(i.indexrelid), 'triggerkit\\.', '', 'g')
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_class t ON t.oid = i.indrelid
WHERE t.relnamespace = 'triggerkit'::regnamespace AND t.relname !~ '^events_'
UNION ALL
SELECT 'constraint', conrelid::regclass::text || ' ' || conname, pg_get_constraintdef(oid)
FROM pg_constraint
WHERE connamespace = 'triggerkit'::regnamespace AND conrelid::regclass::text !~ 'events_'
UNION ALL
SELECT 'function', proname, prosrc FROM pg_proc
WHERE pronamespace = 'triggerkit'::regnamespace
ORDER BY 1, 2, 3
"""

_COUNTS = ("consumers", "cursors", "events", "parked", "deliveries", "runs", "attempts", "spans")


@pytest.fixture(params=sorted(path.stem for path in RELEASED.glob("*.sql")))
def released_url(request: pytest.FixtureRequest, servers: Servers) -> Iterator[str]:
    """A database with the state that a released version made, and worked with."""
    url = servers.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA triggerkit CASCADE")
        connection.execute((RELEASED / f"{request.param}.sql").read_bytes())
    yield url
    servers.drop_database(url)


@pytest.mark.parametrize("version", FROZEN)
def test_a_released_migration_is_as_it_was(version: int) -> None:
    [migration] = [m for m in migrations() if m.version == version]
    assert hashlib.sha256(migration.statements.encode()).hexdigest() == FROZEN[version], (
        "databases have this migration already: write a new one beside it"
    )


def test_the_numbers_of_migrations_have_no_holes() -> None:
    folder = files("triggerkit.state").joinpath("migrations")
    names = [file.name for file in folder.iterdir() if file.name.endswith(".sql")]
    assert sorted(int(name.partition("_")[0]) for name in names) == list(range(1, len(names) + 1))


def test_what_was_released_becomes_what_is_made_today(released_url: str, database_url: str) -> None:
    upgrade(released_url)
    assert rows(released_url, _SHAPE) == rows(database_url, _SHAPE)


def test_an_upgrade_loses_nothing(released_url: str) -> None:
    before = counts(released_url)
    assert all(before.values()), "the released state has something in each of these tables"
    upgrade(released_url)
    assert counts(released_url) == before
    upgrade(released_url)
    assert counts(released_url) == before


def test_runs_of_before_the_upgrade_are_executed_after_it(
    released_url: str, redis_url: str
) -> None:
    done = []

    @task(queue="slow")
    def send(n: int) -> int:
        done.append(n)
        return n

    upgrade(released_url)
    settings = Settings.parse(
        {
            "DATABASE_URL": released_url,
            "REDIS_URL": redis_url,
            "TRIGGERKIT_WEBHOOK_SECRET": "a webhook secret for the tests only",
        }
    )
    with run_state(settings) as state:
        state.connection.execute("UPDATE triggerkit.queues SET paused_at = NULL")
        with working(state, send):
            state.wait_for(lambda: len(done) == 4)
        assert sorted(done) == [1, 2, 4, 5]
        assert done.index(4) < done.index(5), "they have one key"
        assert state.rows("SELECT count(*) FROM triggerkit.runs WHERE status = 'delayed'") == [2]


def upgrade(url: str) -> None:
    """Bring the state up to date."""

    async def upgraded() -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await migrate(connection)

    asyncio.run(upgraded())


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """What `query` answers there."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET search_path = triggerkit")
        return connection.execute(query.encode()).fetchall()


def counts(url: str) -> dict[str, int]:
    """How many rows the tables have."""
    return {name: rows(url, f"SELECT count(*) FROM triggerkit.{name}")[0][0] for name in _COUNTS}
