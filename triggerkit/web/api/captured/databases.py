"""Source databases through the API: what is captured, and where each one's log begins and ends."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row
from pydantic import BaseModel, ConfigDict

from triggerkit.consumers.health import Problem
from triggerkit.errors import CannotConnect, unknown_name
from triggerkit.state.connect import connect
from triggerkit.state.reading import Together
from triggerkit.web.api.operation import Call, Page
from triggerkit.web.api.problems import NotFound

_LIST = """
SELECT d.name, d.slot_name, d.publication_name, d.slot_epoch, d.system_identifier, d.timeline,
    d.retained_from, d.next_position - 1 AS last_position, d.last_commit_lsn, d.heartbeat_at,
    ARRAY(SELECT c.name FROM triggerkit.consumers c WHERE c.database_id = d.id ORDER BY 1)
        AS consumers, d.created_at
FROM triggerkit.databases d ORDER BY d.name
"""


@dataclass(frozen=True, slots=True)
class DatabaseInfo:
    """A source database. Its log holds the positions from `retained_from` to `last_position`;
    `last_commit_lsn` is that of the last transaction in it. `heartbeat_at` is when the stream last
    saw its own heartbeat come back: capture was under way then."""

    name: str
    slot_name: str
    publication_name: str
    slot_epoch: int
    system_identifier: str | None
    timeline: int | None
    retained_from: int
    last_position: int
    last_commit_lsn: int
    heartbeat_at: datetime | None
    consumers: list[str]
    created_at: datetime


class DatabaseHealth(BaseModel):
    """A database as it is captured now, and what is wrong. What only the source tells is null where
    it cannot be asked. `lag_seconds` is the age of the last heartbeat."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    slot_name: str
    slot_active: bool | None
    slot_lag_bytes: int | None
    heartbeat_at: datetime | None
    lag_seconds: float | None
    log_first_position: int
    log_last_position: int
    log_bytes: int
    log_max_bytes: int
    problems: list[Problem]


async def list_databases(call: Call) -> Page[DatabaseInfo]:
    """Return all source databases, by name."""
    async with call.state() as state:
        return Page(data=await _databases(state))


async def show_database(call: Call, name: str) -> DatabaseInfo:
    """Return one source database."""
    async with call.state() as state:
        found = {database.name: database for database in await _databases(state)}
    if name not in found:
        raise _unknown(name, list(found))
    return found[name]


async def show_health(call: Call, name: str) -> DatabaseHealth:
    """Return the health of a database's capture, and what is wrong with its server, slot, tables
    and log. Where the source does not answer, what the state knows of it."""
    named = {database.name: database for database in await show_healths(call)}
    if name not in named:
        raise _unknown(name, list(named))
    return named[name]


async def show_healths(call: Call) -> list[DatabaseHealth]:
    """Return the health of every database, by name."""
    if call.database_health is None:
        raise CannotConnect("this process does not serve databases; ask `triggerkit serve`")
    async with AsyncExitStack() as stack:
        state = await stack.enter_async_context(call.state())
        reads = await stack.enter_async_context(Together(state))
        source: Together | None = reads
        slots: Together | None = None
        settings = call.settings
        try:
            if settings.state_dsn != settings.source_dsn:
                other = await stack.enter_async_context(call.source())
                source = await stack.enter_async_context(Together(other))
            if settings.slot_dsn != settings.source_dsn:
                standby = await connect(settings.slot_dsn, "triggerkit api")
                await stack.enter_async_context(standby)
                slots = await stack.enter_async_context(Together(standby))
        except CannotConnect:
            source = None
        found, _ = await call.database_health(reads, source, call.policy, slots)
    return [DatabaseHealth.model_validate(database) for database in found]


def _unknown(name: str, known: list[str]) -> NotFound:
    return NotFound(unknown_name("database", name, known))


async def _databases(state: psycopg.AsyncConnection) -> list[DatabaseInfo]:
    async with state.cursor(row_factory=class_row(DatabaseInfo)) as cursor:
        await cursor.execute(_LIST)
        return await cursor.fetchall()
