"""Preflight as its tests ask for it: all checks by name, and what their remedies are run by."""

from __future__ import annotations

import asyncio

import psycopg

from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.checks import Check, run_checks

#: The table of the fixture `items`.
ITEMS = '"Shop"."items"'


def checked(settings: Settings, *definitions: ConsumerDefinition) -> dict[str, Check]:
    """All checks by their name, with a consumer for each definition."""
    declared = [Declared(f"task_{i}", d, f"/task-{i}") for i, d in enumerate(definitions)]
    found = asyncio.run(run_checks(settings, declared, advise=True))
    assert len({check.name for check in found}) == len(found)
    assert all((check.remedy is None) == check.ok for check in found)
    return {check.name: check for check in found}


def items_checked(settings: Settings) -> dict[str, Check]:
    """All checks by their name, with a consumer of the table `items`."""
    return checked(settings, changes("Shop.items"))


def run_sql(settings: Settings, *statements: str) -> None:
    """Run statements on the source as its superuser."""
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def applied(settings: Settings, *definitions: ConsumerDefinition) -> list[str]:
    """What `apply` does with a consumer for each definition."""

    async def connected() -> list[str]:
        declared = [Declared(f"task_{i}", d, f"/task-{i}") for i, d in enumerate(definitions)]
        async with (
            await connect(settings.source_dsn, "test") as source,
            await connect(settings.state_dsn, "test") as state,
        ):
            return await apply(source, state, declared, "http://127.0.0.1:1")

    return asyncio.run(connected())


def database_name(settings: Settings) -> str:
    """The source database's name."""
    with psycopg.connect(settings.source_dsn) as connection:
        return connection.info.dbname


def number(settings: Settings, query: str) -> int:
    """The number that `query` answers on the source."""
    with psycopg.connect(settings.source_dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])
