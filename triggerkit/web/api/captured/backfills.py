"""Backfills through the API: started, shown with their progress, paused, resumed, canceled."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import psycopg
from pydantic import BaseModel, ConfigDict, Field

from triggerkit.consumers.backfill.store import BackfillProgress, BackfillStore, State
from triggerkit.consumers.definition import Table, TableName
from triggerkit.web.api.operation import ACTOR, Call, Given, Page
from triggerkit.web.api.problems import NotFound


class Backfill(BaseModel):
    """A table that is read for a consumer, and how far that is. `rows_estimated` is Postgres's own
    estimate; `limit_rows_per_s` throttles it, `rows_per_s` is its rate lately."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    id: int
    consumer: str
    table: str
    sort_by: str | None
    from_: Annotated[str | None, Field(alias="from")]
    until: str | None
    limit_rows_per_s: int | None
    state: State
    rows_read: int
    rows_logged: int
    rows_estimated: int
    rows_per_s: float | None
    percent: float
    eta_s: float | None
    error: str | None
    created_at: datetime
    finished_at: datetime | None


class NewBackfill(Given):
    """Read a consumer's tables, all of them without `tables`; the rows whose value in the sort
    column is at or after `from` and before `until`, as text that the column's type reads."""

    consumer: str
    tables: Annotated[list[Table] | None, Field(min_length=1)] = None
    sort_by: str | None = None
    from_: Annotated[str | None, Field(alias="from")] = None
    until: str | None = None
    rows_per_s: Annotated[int | None, Field(ge=1, le=2**31 - 1)] = None


class StartedBackfills(BaseModel):
    """The backfills that were started, one for each table, and what is to be warned of."""

    data: list[Backfill]
    warnings: list[str]


class Which(Given):
    """A selection of backfills."""

    all: bool = False


async def list_backfills(call: Call, query: Which) -> Page[Backfill]:
    """Return the backfills that are active, paused or failed; with `all=true` all that ever
    were."""
    async with call.state() as state:
        found = await BackfillStore(state, ACTOR).list(all_=query.all)
    return Page(data=[_shown(progress) for progress in found])


async def start_backfill(call: Call, body: NewBackfill) -> StartedBackfills:
    """Read tables for a consumer, which keeps getting their changes meanwhile. While a backfill of
    one of the tables is open for the consumer, this is a 409."""
    tables = None if body.tables is None else [TableName.parse(t) for t in body.tables]
    async with call.source() as source, call.state() as state:
        store = BackfillStore(state, ACTOR)
        started = await store.start(
            source,
            body.consumer,
            tables,
            sort_by=body.sort_by,
            from_=body.from_,
            until=body.until,
            rows_per_s=body.rows_per_s,
        )
        found = [_shown(await _find(state, one.id)) for one in started]
    return StartedBackfills(data=found, warnings=[one.warning for one in started if one.warning])


async def show_backfill(call: Call, id: int) -> Backfill:  # noqa: A002 - the path's name
    """Return one backfill and how far it is."""
    async with call.state() as state:
        return _shown(await _find(state, id))


async def pause_backfill(call: Call, id: int) -> Backfill:  # noqa: A002
    """Read no more after the chunk in flight, until it is resumed."""
    async with call.state() as state:
        await _find(state, id)
        await BackfillStore(state, ACTOR).pause(id)
        return _shown(await _find(state, id))


async def resume_backfill(call: Call, id: int) -> Backfill:  # noqa: A002
    """Go on from where it was paused, or failed."""
    async with call.state() as state:
        await _find(state, id)
        await BackfillStore(state, ACTOR).resume(id)
        return _shown(await _find(state, id))


async def cancel_backfill(call: Call, id: int) -> Backfill:  # noqa: A002
    """Read no more, for good. What was read stays in the log and is delivered."""
    async with call.state() as state:
        await _find(state, id)
        await BackfillStore(state, ACTOR).cancel(id)
        return _shown(await _find(state, id))


async def _find(state: psycopg.AsyncConnection, backfill_id: int) -> BackfillProgress:
    found = {one.id: one for one in await BackfillStore(state, ACTOR).list(all_=True)}
    if backfill_id not in found:
        known = ", ".join(map(str, list(found)[-20:]))
        there = f"the latest are {known}" if known else "there are none yet"
        raise NotFound(f"there is no backfill {backfill_id}; {there}")
    return found[backfill_id]


def _shown(progress: BackfillProgress) -> Backfill:
    return Backfill(**asdict(progress), percent=progress.percent, eta_s=progress.eta_s)
