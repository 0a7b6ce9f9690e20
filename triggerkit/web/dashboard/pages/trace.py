"""The pages of changes: the newest of the log, and one with its way to every effect."""

from __future__ import annotations

from datetime import UTC, datetime

from triggerkit.consumers.trace.latest import FoundChanges, Wanted, latest_changes
from triggerkit.errors import TriggerkitError
from triggerkit.web.api.captured.databases import list_databases
from triggerkit.web.api.problems import NotFound
from triggerkit.web.api.traces import TraceFilter, show_trace
from triggerkit.web.dashboard.diff import columns_of, knows_old_values
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown
from triggerkit.web.dashboard.search import Qualifier, Search, moment_of
from triggerkit.web.dashboard.waterfall import draw, joined

QUALIFIERS = (
    Qualifier("table", "posts"),
    Qualifier("key", "17"),
    Qualifier("action", "update", ("insert", "update", "delete", "read", "truncate")),
    Qualifier("since", "1h", ("10m", "1h", "24h")),
    Qualifier("database", "app"),
)

#: Changes on a page.
PAGE_CHANGES = 50


async def show_changes(asked: Asked) -> Answer:
    """Show the newest changes that fit, without their rows."""
    databases = [one.name for one in (await list_databases(asked.call)).data]
    tables = sorted({table for task in asked.call.tasks if task.on for table in task.on.tables})
    several = databases if len(databases) > 1 else []
    search = Search.of(asked, QUALIFIERS, {"table": tables, "database": several})
    problem, found = search.problem, FoundChanges()
    if problem is None and databases:
        try:
            found = await _found(asked, search)
        except (TriggerkitError, ValueError) as error:
            problem = str(error)
    values = {
        "changes": found.changes,
        "back_to": found.back_to,
        "search": search,
        "problem": problem,
        "is_captured": bool(databases),
        "first": asked.link("trace", **search.query) if "cursor" in asked.query else None,
        "next": asked.link("trace", **search.query, cursor=found.before) if found.before else None,
    }
    return Shown("changes.html", "Trace", values, 200 if problem is None else 422)


async def show_change(asked: Asked) -> Answer:
    """Show one change: the row before and after, its way, and the runs that it made."""
    wanted = TraceFilter.model_validate(asked.query)
    change = await show_trace(asked.call, asked.path("position"), wanted)
    values = {
        "change": change,
        "waterfall": draw(joined(change), datetime.now(UTC)),
        "columns": columns_of(change),
        "knows_old": knows_old_values(change),
    }
    return Shown("change.html", f"{change.action} of {change.table}", values)


async def _found(asked: Asked, search: Search) -> FoundChanges:
    given = search.given
    if "key" in given and "table" not in given:
        raise NotFound("key: needs table: too, such as table:posts key:17")
    before = asked.query.get("cursor", "")
    if before and not (before.isascii() and before.isdecimal() and len(before) < 19):
        raise NotFound("cursor: it is no position")
    wanted = Wanted(
        given.get("table"), given.get("key"), given.get("action"), moment_of(given.get("since"))
    )
    async with asked.call.state() as state:
        cursor = await state.execute(
            "SELECT id, next_position FROM triggerkit.databases "
            "WHERE %(name)s::text IS NULL OR name = %(name)s ORDER BY id LIMIT 1",
            {"name": given.get("database")},
        )
        row = await cursor.fetchone()
        if row is None:
            raise NotFound("database: none of this name is captured")
        end = min(int(before), row[1]) if before else row[1]
        return await latest_changes(state, row[0], end, wanted, limit=PAGE_CHANGES)


ROUTES = (Route("/trace", show_changes), Route("/trace/{position}", show_change))
