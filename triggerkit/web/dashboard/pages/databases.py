"""The pages of databases: how each is captured, and every check with what mends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from triggerkit.errors import CannotConnect, ConfigurationError
from triggerkit.web.api.databases import list_databases, show_database, show_health
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown


async def show_databases(asked: Asked) -> Answer:
    """Show all source databases, and what `triggerkit check` finds of the one that is set."""
    found = await list_databases(asked.call)
    health = {one.name: await show_health(asked.call, one.name) for one in found.data}
    checks, problem = await checked(asked)
    values = {"databases": found.data, "health": health, "checks": checks, "problem": problem}
    # Not live: the checks are many, and tell of what seldom changes.
    return Shown("databases.html", "Databases", values, is_live=False)


async def show_one_database(asked: Asked) -> Answer:
    """Show one database: slot, publication, log and what is wrong with them."""
    name = asked.path("name")
    database = await show_database(asked.call, name)
    values = {"database": database, "health": await show_health(asked.call, name)}
    return Shown("database.html", f"Database {name}", values)


async def checked(asked: Asked) -> tuple[Sequence[Any], str | None]:
    """Return the checks, and why they could not be made."""
    if asked.looks.checks is None:
        return (), "this process makes no checks; run: triggerkit check"
    try:
        return await asked.looks.checks(asked.call.settings), None
    except (CannotConnect, ConfigurationError) as error:
        return (), str(error)


ROUTES = (Route("/databases", show_databases), Route("/databases/{name:path}", show_one_database))
