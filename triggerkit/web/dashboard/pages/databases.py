"""The pages of databases: how each is captured, and every check with what mends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from triggerkit.errors import CannotConnect, ConfigurationError
from triggerkit.web.api.captured.databases import (
    list_databases,
    show_database,
    show_health,
    show_healths,
)
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown


async def show_databases(asked: Asked) -> Answer:
    """Show all source databases; the checks of the one that is set are asked for by the page."""
    found = await list_databases(asked.call)
    health = {one.name: one for one in await show_healths(asked.call)} if found.data else {}
    values = {"databases": found.data, "health": health}
    # Not live: what it tells of seldom changes, and the checks on it would be gone.
    return Shown("databases.html", "Databases", values, is_live=False)


async def show_one_database(asked: Asked) -> Answer:
    """Show one database: slot, publication, log and what is wrong with them."""
    name = asked.path("name")
    database = await show_database(asked.call, name)
    values = {"database": database, "health": await show_health(asked.call, name)}
    return Shown("database.html", f"Database {name}", values)


async def show_checks(asked: Asked) -> Answer:
    """Show what `triggerkit check` finds of the database that is set, what fails first."""
    checks, problem = await _checked(asked)
    failed = [check for check in checks if not check.ok]
    values = {"checks": checks, "failed": failed, "problem": problem}
    return Shown("checks.html", "Checks", values, is_live=False)


async def _checked(asked: Asked) -> tuple[Sequence[Any], str | None]:
    """Return the checks, and why they could not be made."""
    if asked.looks.checks is None:
        return (), "this process makes no checks; run: triggerkit check"
    try:
        return await asked.looks.checks(asked.call.settings), None
    except (CannotConnect, ConfigurationError) as error:
        return (), str(error)


ROUTES = (
    Route("/databases", show_databases),
    Route("/databases/{name:path}", show_one_database),
    Route("/checks", show_checks),
)
