"""`check` advises against a role that may do more than capture needs."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import psycopg
import pytest

from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.checks.check import Check
from triggerkit.supervisor.checks.server import check_rights


def rights_of(settings: Settings, role: str | None) -> Check:
    async def found() -> Check:
        async with await connect(settings.source_dsn, "test") as source:
            if role is not None:
                await source.execute(f'SET ROLE "{role}"')
            return await check_rights(source)

    return asyncio.run(found())


def test_a_superuser_is_advised_against_and_refused_nothing(settings: Settings) -> None:
    check = rights_of(settings, None)
    assert not check.ok
    assert not check.failed
    assert "a superuser" in check.detail
    assert check.remedy is not None
    assert check.remedy.startswith("triggerkit roles")


@pytest.mark.parametrize(
    ("rights", "detail"),
    [("REPLICATION", ""), ("CREATEROLE", " is one that makes roles")],
)
def test_a_role_is_named_with_what_it_may_besides(
    settings: Settings, rights: str, detail: str
) -> None:
    role = f"test_{uuid4().hex[:8]}"
    with psycopg.connect(settings.source_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} {rights}".encode())
    try:
        check = rights_of(settings, role)
        assert check.detail == f"{role}{detail}"
        assert check.ok is (detail == "")
    finally:
        with psycopg.connect(settings.source_dsn, autocommit=True) as connection:
            connection.execute(f"DROP ROLE {role}".encode())
