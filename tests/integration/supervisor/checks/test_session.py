"""The sessions' settings: what a role or a database asks for is named and does not count."""

from __future__ import annotations

import asyncio

from tests.integration.supervisor.checks.checking import checked, database_name, run_sql
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.checks.check import Check
from triggerkit.supervisor.checks.session import check_session


def test_a_databases_own_settings_are_named_and_do_not_count(settings: Settings) -> None:
    assert checked(settings)["session"].detail == "settings are triggerkit's own"
    database = database_name(settings)
    run_sql(
        settings,
        f"ALTER DATABASE {database} SET statement_timeout = '10ms'",
        f"ALTER DATABASE {database} SET synchronous_commit = off",
        f"ALTER DATABASE {database} SET work_mem = '8MB'",
    )
    check = checked(settings)["session"]
    assert check.ok
    assert "statement_timeout, synchronous_commit of the role or the database" in check.detail


def test_a_session_that_lost_its_settings_is_a_poolers(settings: Settings) -> None:
    async def after(statement: str) -> Check:
        async with await connect(settings.source_dsn, "test") as connection:
            await connection.execute(statement.encode())
            return await check_session(connection, "session")

    for statement, lost in {
        "DISCARD ALL": "search_path",
        "SET synchronous_commit = off": "synchronous_commit",
        "SET statement_timeout = '1min'": "statement_timeout",
    }.items():
        check = asyncio.run(after(statement))
        assert check.failed
        assert lost in check.detail
        assert "pooler" in (check.remedy or "")
