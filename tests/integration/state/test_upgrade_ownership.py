"""Upgrades of a schema that is another role's, or something else's; and by hand, by what
`upgrade --dry-run` prints."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.conftest import WEBHOOK_SECRET
from tests.integration.state.test_upgrade_command import (
    LATEST,
    bring_to,
    old_url,  # noqa: F401 - a fixture
    triggerkit,
)
from tests.integration.state.test_upgrades import _SHAPE, rows, upgrade
from tests.servers import Servers
from triggerkit.embedded import programs
from triggerkit.errors import PreflightFailed
from triggerkit.settings import Settings
from triggerkit.state.migrate import script
from triggerkit.supervisor.checks.check import Check
from triggerkit.supervisor.checks.state import check_state

_OWNERS = """
SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class
WHERE relnamespace = 'triggerkit'::regnamespace
"""

_GIVE = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT oid::regclass FROM pg_class
        WHERE relnamespace = 'triggerkit'::regnamespace AND relkind IN ('r', 'p') LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO {role}', name);
    END LOOP;
    FOR name IN SELECT oid::regprocedure FROM pg_proc
        WHERE pronamespace = 'triggerkit'::regnamespace LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO {role}', name);
    END LOOP;
END $$
"""

TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'triggerkit' ORDER BY 1"


@pytest.fixture
def role(old_url: str) -> Iterator[str]:  # noqa: F811
    """A role that owns the schema of the first release, as `triggerkit roles` makes it."""
    name = f"state_{uuid4().hex[:8]}"
    with psycopg.connect(old_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        connection.execute(f"ALTER SCHEMA triggerkit OWNER TO {name}".encode())
        connection.execute(_GIVE.format(role=name).encode())
    yield name
    with psycopg.connect(old_url, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {name} CASCADE".encode())
        connection.execute(f"DROP ROLE {name}".encode())


@pytest.fixture
def foreign_url(servers: Servers) -> Iterator[str]:
    """A database whose schema `triggerkit` is of something else."""
    url = servers.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA triggerkit CASCADE")
        connection.execute("CREATE SCHEMA triggerkit")
    yield url
    servers.drop_database(url)


def by_psql(url: str, printed: str) -> str:
    """Run what was printed by hand, as it comes: psql goes on after an error."""
    psql = programs.postgres_folder(None) / "bin" / "psql"
    command = [str(psql), "-X", "-q", url]
    return subprocess.run(
        command, input=printed, capture_output=True, text=True, timeout=60, check=False
    ).stderr


def checked(url: str) -> Check:
    async def check() -> list[Check]:
        settings = Settings.parse(
            {
                "DATABASE_URL": url,
                "REDIS_URL": "redis://127.0.0.1:1",
                "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
            }
        )
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            return await check_state(settings, connection)

    return asyncio.run(check())[0]


@pytest.mark.parametrize("is_printed", [False, True], ids=["run", "printed"])
def test_what_a_superuser_upgrades_stays_of_the_role_that_owns_it(
    old_url: str,  # noqa: F811
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    role: str,
    is_printed: bool,
) -> None:
    if is_printed:
        _, printed = triggerkit(tmp_path, old_url, redis_url, "upgrade", "--dry-run")
        assert by_psql(old_url, printed) == ""
    else:
        upgrade(old_url)
    assert rows(old_url, _SHAPE) == rows(database_url, _SHAPE)
    assert rows(old_url, _OWNERS) == [(role,)]
    assert checked(make_conninfo(old_url, user=role)).ok


def test_a_check_says_whose_tables_cannot_be_used_and_its_remedy_mends_it(
    old_url: str,  # noqa: F811
    role: str,
) -> None:
    upgrade(old_url)
    with psycopg.connect(old_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE triggerkit.alerts OWNER TO postgres")
        connection.execute("ALTER VIEW triggerkit.open_tunnels OWNER TO postgres")
        connection.execute("ALTER FUNCTION triggerkit.table_text OWNER TO postgres")
    found = checked(make_conninfo(old_url, user=role))
    assert not found.ok
    assert found.detail == (
        f"3 of the tables and functions in it belong to postgres, not to {role}"
    )
    assert found.remedy is not None
    with psycopg.connect(old_url, autocommit=True) as connection:
        connection.execute(found.remedy.encode())
    assert checked(make_conninfo(old_url, user=role)).ok
    assert rows(old_url, _OWNERS) == [(role,)]


def test_a_role_that_does_not_own_the_schema_upgrades_nothing(
    old_url: str,  # noqa: F811
    role: str,
) -> None:
    with psycopg.connect(old_url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS stranger")
        connection.execute("CREATE ROLE stranger LOGIN")
        connection.execute("GRANT ALL ON SCHEMA triggerkit TO stranger")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA triggerkit TO stranger")
    before = rows(old_url, _SHAPE)
    with pytest.raises(PreflightFailed, match=f"belongs to {role}, not to stranger; run this as"):
        upgrade(make_conninfo(old_url, user="stranger"))
    assert rows(old_url, _SHAPE) == before
    with psycopg.connect(old_url, autocommit=True) as connection:
        connection.execute(f"GRANT {role} TO stranger".encode())
    upgrade(make_conninfo(old_url, user="stranger"))
    assert rows(old_url, _OWNERS) == [(role,)]
    with psycopg.connect(old_url, autocommit=True) as connection:
        connection.execute("DROP OWNED BY stranger; DROP ROLE stranger")


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE triggerkit.runs (id int)",
        "CREATE TABLE triggerkit.migrations (id int, migration text)",
        "CREATE TABLE triggerkit.migrations (version text, name text)",
    ],
)
def test_a_schema_that_something_else_made_is_left_alone(
    foreign_url: str, redis_url: str, tmp_path: Path, made: str
) -> None:
    with psycopg.connect(foreign_url, autocommit=True) as connection:
        connection.execute(made.encode())
    before = rows(foreign_url, TABLES)
    (tmp_path / "tasks.py").write_text("from triggerkit import task\n@task\ndef t(p: int): ...\n")
    for words in (["upgrade", "--dry-run"], ["upgrade"], ["apply", "--yes"], ["serve"], ["worker"]):
        code, said = triggerkit(tmp_path, foreign_url, redis_url, *words)
        assert (code, said.count("something else made its tables; rename it")) == (3, 1), said
    _, said = triggerkit(tmp_path, foreign_url, redis_url, "status")
    assert "something else made its tables" in said
    assert not checked(foreign_url).ok
    assert rows(foreign_url, TABLES) == before


def test_what_is_printed_is_run_as_a_whole_or_not_at_all(
    old_url: str,  # noqa: F811
    database_url: str,
    redis_url: str,
    tmp_path: Path,
) -> None:
    _, printed = triggerkit(tmp_path, old_url, redis_url, "upgrade", "--dry-run")
    with psycopg.connect(old_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE triggerkit.relations (something int)")
    before = rows(old_url, _SHAPE)
    assert 'relation "relations" already exists' in by_psql(old_url, printed)
    assert rows(old_url, _SHAPE) == before
    assert rows(old_url, "SELECT max(version) FROM migrations") == [(1,)]
    with psycopg.connect(old_url, autocommit=True) as connection:
        connection.execute("DROP TABLE triggerkit.relations")
    assert by_psql(old_url, printed) == ""
    assert rows(old_url, _SHAPE) == rows(database_url, _SHAPE)


@pytest.mark.parametrize("above", [0, 5, LATEST - 1])
def test_what_was_printed_for_another_version_changes_nothing(old_url: str, above: int) -> None:  # noqa: F811
    before = rows(old_url, _SHAPE)
    said = by_psql(old_url, script(above, has_schema=True))
    assert f"from version {above}, and it has another" in said
    assert "Print it anew: triggerkit upgrade --dry-run" in said
    assert rows(old_url, _SHAPE) == before
    assert rows(old_url, "SELECT max(version) FROM migrations") == [(1,)]


@pytest.mark.parametrize("version", [1, 9, 22, LATEST - 1])
def test_what_is_printed_makes_the_same_by_hand(
    old_url: str,  # noqa: F811
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    version: int,
) -> None:
    bring_to(old_url, version)
    _, printed = triggerkit(tmp_path, old_url, redis_url, "upgrade", "--dry-run")
    assert by_psql(old_url, printed) == ""
    assert rows(old_url, _SHAPE) == rows(database_url, _SHAPE)


def test_a_check_says_whether_a_newer_schema_is_worked_with(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO triggerkit.installation DEFAULT VALUES")
        connection.execute("INSERT INTO triggerkit.migrations VALUES (9000, 'later')")
        connection.execute("UPDATE triggerkit.installation SET needs = %s", [LATEST])
        found = checked(database_url)
        assert found.ok
        assert found.detail.startswith(f"version 9000, newer than the {LATEST} of this triggerkit")
        connection.execute("UPDATE triggerkit.installation SET needs = 9000")
    found = checked(database_url)
    assert not found.ok
    assert found.remedy == "pip install --upgrade triggerkit"
