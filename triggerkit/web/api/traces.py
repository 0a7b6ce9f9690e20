"""The way of one change through the API: captured, delivered, and the runs that it made."""

from __future__ import annotations

import psycopg

from triggerkit.consumers.declare.manage import Consumers
from triggerkit.consumers.trace.changes import Trace, trace
from triggerkit.consumers.trace.runs import position_of_run
from triggerkit.errors import TriggerkitError
from triggerkit.web.api.operation import ACTOR, Call, Given
from triggerkit.web.api.problems import NotFound

_DATABASES = """
SELECT id, name FROM triggerkit.databases
WHERE %(name)s::text IS NULL OR name = %(name)s ORDER BY id
"""


class TraceFilter(Given):
    """Of which database the position is, where there are several; and of one consumer alone."""

    database: str | None = None
    consumer: str | None = None


async def show_trace(call: Call, position: str, query: TraceFilter) -> Trace:
    """Return the whole way of the change at a position of the log, or of the one that made a run,
    whose id stands in its place. It is known as long as the log keeps the change."""
    async with call.state() as state:
        if query.consumer is not None:
            await Consumers(state, ACTOR).find(query.consumer)
        database_id, at, consumer = await _place(state, position, query)
    run_id = position if position.startswith("run_") else None
    try:
        return await trace(call.client.pool, database_id, at, consumer, run_id=run_id)
    except TriggerkitError as error:
        raise NotFound(str(error)) from None


async def _place(
    state: psycopg.AsyncConnection, position: str, query: TraceFilter
) -> tuple[int, int, str | None]:
    if position.startswith("run_"):
        try:
            database_id, at, consumer = await position_of_run(state, position)
        except TriggerkitError as error:
            raise NotFound(str(error)) from None
        return database_id, at, query.consumer or consumer
    if not (position.isascii() and position.isdecimal() and len(position) < 19):
        raise NotFound("give a position in the log, or a run's id")
    cursor = await state.execute(_DATABASES, {"name": query.database})
    found = await cursor.fetchall()
    if not found:
        raise NotFound("no captured database has this name; see GET /api/v1/databases")
    if len(found) > 1:
        names = ", ".join(name for _, name in found)
        raise NotFound(f"say which database the position belongs to (database=…): {names}")
    return found[0][0], int(position), query.consumer
