"""Settings of the role or the database that a task's own connection would have."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from tests.integration.supervisor.checks.checking import checked, database_name, run_sql
from triggerkit.settings import Settings


@pytest.mark.parametrize(
    ("name", "value", "effect"),
    [
        ("statement_timeout", "'10s'", "10s: it ends what a task does"),
        ("lock_timeout", "'50ms'", "50ms: it ends"),
        ("idle_in_transaction_session_timeout", "'1min'", "1min: it ends"),
        ("default_transaction_read_only", "on", "refused"),
        ("client_encoding", "latin1", "cannot read or write every character"),
    ],
)
def test_a_setting_that_hurts_tasks_is_advised_against(
    settings: Settings, name: str, value: str, effect: str
) -> None:
    assert not any(check.startswith("role setting") for check in checked(settings))
    run_sql(settings, f"ALTER DATABASE {database_name(settings)} SET {name} = {value}")
    check = checked(settings)[f"role setting {name}"]
    assert (check.ok, check.failed) == (False, False)
    assert effect in check.detail
    run_sql(settings, check.remedy or "")
    assert f"role setting {name}" not in checked(settings)


def test_the_roles_own_setting_wins_and_is_the_one_to_reset(settings: Settings) -> None:
    role, database = f'r "{uuid4().hex[:8]}"', database_name(settings)
    quoted = sql.Identifier(role).as_string(None)
    run_sql(
        settings,
        f"CREATE ROLE {quoted} LOGIN SUPERUSER",
        f"ALTER DATABASE {database} SET lock_timeout = '1s'",
        f"ALTER ROLE {quoted} SET lock_timeout = '2s'",
        f"ALTER ROLE {quoted} IN DATABASE {database} SET lock_timeout = '0'",
    )
    try:
        dsn = psycopg.conninfo.make_conninfo(settings.source_dsn, user=role)
        theirs = settings.model_copy(
            update={
                "database_url": SecretStr(dsn),
                "triggerkit_state_url": settings.database_url,
            }
        )
        assert "role setting lock_timeout" not in checked(theirs)
        run_sql(settings, f"ALTER ROLE {quoted} IN DATABASE {database} RESET lock_timeout")
        check = checked(theirs)["role setting lock_timeout"]
        assert check.detail.startswith("2s: ")
        assert check.remedy == f'ALTER ROLE {quoted} RESET "lock_timeout";'
    finally:
        run_sql(settings, f"DROP ROLE {quoted}")


def test_a_database_that_takes_any_bytes_for_text_is_told(settings: Settings) -> None:
    name = f"bytes_{uuid4().hex[:8]}"
    run_sql(
        settings,
        f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' "
        "LOCALE_PROVIDER libc TEMPLATE template0",
    )
    try:
        dsn = psycopg.conninfo.make_conninfo(settings.source_dsn, dbname=name)
        theirs = settings.model_copy(
            update={
                "database_url": SecretStr(dsn),
                "triggerkit_state_url": settings.database_url,
            }
        )
        check = checked(theirs)["database encoding"]
        assert (check.ok, check.failed) == (False, False)
        assert "UTF8" in (check.remedy or "")
    finally:
        run_sql(settings, f"DROP DATABASE {name}")
