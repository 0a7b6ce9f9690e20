"""Source databases through the API: what is captured, and where each one's log begins and ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

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
class Database:
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


async def list_databases(call: Call) -> Page[Database]:
    """All source databases, by name."""
    async with call.state() as state:
        return Page(data=await _databases(state))


async def show_database(call: Call, name: str) -> Database:
    """One source database."""
    async with call.state() as state:
        found = {database.name: database for database in await _databases(state)}
    if name not in found:
        there = f"there are {', '.join(found)}" if found else "there is none yet"
        raise NotFound(f"no database is named {name!r}; {there}")
    return found[name]


async def _databases(state: psycopg.AsyncConnection) -> list[Database]:
    async with state.cursor(row_factory=class_row(Database)) as cursor:
        await cursor.execute(_LIST)
        return await cursor.fetchall()
