"""`triggerkit upgrade`: printed first, run twice, interrupted, by several at once; from every
version. And processes that are older or newer than the schema."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.project import eventually, run_command
from tests.conftest import WEBHOOK_SECRET
from tests.integration.state.test_upgrades import _SHAPE, RELEASED, counts, rows, upgrade
from tests.servers import Servers
from triggerkit.errors import PreflightFailed
from triggerkit.state.migrate import (
    migrate,
    migrations,
    require_schema,
    script,
    version_problem,
)

LATEST = migrations()[-1].version


@pytest.fixture
def old_url(servers: Servers) -> Iterator[str]:
    """A database as the first release left it, with rows in it."""
    url = servers.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA triggerkit CASCADE")
        connection.execute((RELEASED / "0001.sql").read_bytes())
    yield url
    servers.drop_database(url)


def bring_to(url: str, version: int) -> None:
    """Apply migrations up to `version`, as the release of that time did."""
    with psycopg.connect(url, autocommit=True) as connection:
        for migration in migrations()[1:version]:
            with connection.transaction():
                connection.execute("SET LOCAL search_path = triggerkit, pg_catalog")
                connection.execute(migration.statements.encode())
                connection.execute(
                    "INSERT INTO triggerkit.migrations (version, name) VALUES (%s, %s)",
                    [migration.version, migration.name],
                )


def triggerkit(folder: Path, url: str, redis_url: str, *words: str) -> tuple[int, str]:
    settings = {
        "DATABASE_URL": url,
        "REDIS_URL": redis_url,
        "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "TRIGGERKIT_PORT": "0",
    }
    done = run_command(folder, "triggerkit", *words, settings=settings)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("version", [*range(2, LATEST - 1, 6), LATEST - 1])
def test_the_schema_of_every_version_becomes_todays_and_keeps_its_rows(
    old_url: str, database_url: str, version: int
) -> None:
    bring_to(old_url, version)
    before = counts(old_url)
    assert all(before.values())
    upgrade(old_url)
    assert rows(old_url, _SHAPE) == rows(database_url, _SHAPE)
    assert counts(old_url) == before


def test_a_dry_run_prints_what_would_run_and_changes_nothing(
    old_url: str, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    before = rows(old_url, _SHAPE)
    code, printed = triggerkit(tmp_path, old_url, redis_url, "upgrade", "--dry-run")
    assert code == 0
    assert rows(old_url, _SHAPE) == before
    assert "-- migration 2:" in printed
    assert "-- migration 1:" not in printed
    with psycopg.connect(old_url, autocommit=True) as connection:
        connection.execute(printed.encode())
    assert rows(old_url, _SHAPE) == rows(database_url, _SHAPE)
    code, printed = triggerkit(tmp_path, old_url, redis_url, "upgrade", "--dry-run")
    assert (code, printed) == (0, "-- the schema triggerkit is up to date\n")


def test_a_dry_run_of_an_empty_database_is_the_whole_schema(
    servers: Servers, redis_url: str, tmp_path: Path
) -> None:
    url = servers.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA triggerkit CASCADE")
    assert triggerkit(tmp_path, url, redis_url, "upgrade", "--dry-run") == (0, script())
    servers.drop_database(url)


def test_several_upgrades_at_once_are_one(
    old_url: str, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    done: list[tuple[int, str]] = []

    def run() -> None:
        done.append(triggerkit(tmp_path, old_url, redis_url, "upgrade"))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [code for code, _ in done] == [0, 0, 0]
    said = "".join(text for _, text in done)
    assert said.count("applied migration 2:") == 1
    assert said.count("up to date") == 2
    assert rows(old_url, _SHAPE) == rows(database_url, _SHAPE)


def test_an_upgrade_that_was_interrupted_goes_on(old_url: str, database_url: str) -> None:
    async def interrupted() -> None:
        async with await psycopg.AsyncConnection.connect(old_url, autocommit=True) as connection:
            await migrate(connection)

    failed: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(interrupted())
        except psycopg.OperationalError as error:
            failed.append(error)

    with psycopg.connect(old_url) as holder:
        # Several migrations change it: one in the midst of them waits, and is ended there.
        holder.execute("LOCK triggerkit.consumers IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=run)
        thread.start()
        with psycopg.connect(old_url, autocommit=True) as other:
            waiting = (
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"
            )
            pid = eventually(lambda: other.execute(waiting).fetchone(), 20, "it waits")
            assert pid is not None
            other.execute("SELECT pg_terminate_backend(%s)", pid)
        thread.join()
    assert failed
    [(version,)] = rows(old_url, "SELECT max(version) FROM triggerkit.migrations")
    assert 1 <= version < LATEST
    upgrade(old_url)
    assert rows(old_url, _SHAPE) == rows(database_url, _SHAPE)


def test_those_who_work_there_go_on_while_a_backup_holds_an_upgrade_up(
    old_url: str, database_url: str
) -> None:
    """Whoever waits for a lock holds up all who come behind it."""
    upgrading = threading.Thread(target=upgrade, args=[old_url])
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(old_url) as backup, psycopg.connect(old_url, autocommit=True) as worker:
        # As pg_dump does, for as long as it reads.
        backup.execute("LOCK triggerkit.consumers, triggerkit.runs IN ACCESS SHARE MODE")
        upgrading.start()
        eventually(lambda: worker.execute(waiting).fetchone() == (1,), 20, "it waits")
        worker.execute("SET statement_timeout = '5s'")
        for table in ("consumers", "runs"):
            worker.execute(f"SELECT count(*) FROM triggerkit.{table}".encode())
        assert upgrading.is_alive()
    upgrading.join(30)
    assert rows(old_url, _SHAPE) == rows(database_url, _SHAPE)


@pytest.mark.parametrize("command", ["serve", "stream", "worker"])
def test_a_process_says_that_the_schema_is_older_and_what_to_do(
    old_url: str, redis_url: str, tmp_path: Path, command: str
) -> None:
    (tmp_path / "tasks.py").write_text("from triggerkit import task\n@task\ndef t(p: int): ...\n")
    code, said = triggerkit(tmp_path, old_url, redis_url, command)
    assert code == 3
    assert f"is of version 1, and {LATEST} is needed; run: triggerkit upgrade" in said


@pytest.mark.parametrize("command", ["serve", "stream", "worker"])
def test_a_process_says_that_the_schema_is_too_new_and_what_to_do(
    database_url: str, redis_url: str, tmp_path: Path, command: str
) -> None:
    (tmp_path / "tasks.py").write_text("from triggerkit import task\n@task\ndef t(p: int): ...\n")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO triggerkit.migrations VALUES (9000, 'later')")
        connection.execute("UPDATE triggerkit.installation SET needs = 9000")
    code, said = triggerkit(tmp_path, database_url, redis_url, command)
    assert code == 3
    assert "newer than the" in said
    assert "install the release that made it" in said


def test_a_later_schema_that_only_adds_is_worked_with(database_url: str) -> None:
    async def required() -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await require_schema(connection)

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO triggerkit.migrations VALUES (9000, 'later')")
        connection.execute("UPDATE triggerkit.installation SET needs = %s", [LATEST])
    asyncio.run(required())
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE triggerkit.installation SET needs = %s", [LATEST + 1])
    with pytest.raises(PreflightFailed, match="newer than"):
        asyncio.run(required())


def test_versions_are_told_apart() -> None:
    assert version_problem(LATEST) is None
    assert version_problem(LATEST + 1, LATEST) is None
    assert "newer" in str(version_problem(LATEST + 1, LATEST + 1))
    assert "is needed" in str(version_problem(LATEST - 1))
    assert "is missing" in str(version_problem(0))


def test_a_migration_that_takes_away_says_what_it_needs() -> None:
    """Processes of the release before run beside the new ones: see CONTRIBUTING.md."""
    for migration in migrations():
        statements = migration.statements.upper()
        takes_away = any(
            words in statements
            for words in ("DROP TABLE", "DROP COLUMN", "RENAME COLUMN", "RENAME TO")
        )
        if migration.version > 29 and takes_away:
            assert f"SET NEEDS = {migration.version}" in statements, migration.name
