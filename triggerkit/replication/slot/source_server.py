"""Check that a stream comes from the server and the history that the log has."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from triggerkit.errors import SlotError
from triggerkit.lsn import Lsn

_ANEW = "run `triggerkit apply`, and read the tables again with `triggerkit backfill`"


@dataclass(frozen=True, slots=True)
class Server:
    """A server and its timeline: a standby that took over has the identifier, but a later one."""

    system_identifier: str
    timeline: int


async def require_same(
    connection: psycopg.AsyncConnection, known: Server | None, after: int, slot_name: str
) -> Server:
    """Return the server at the other end of a replication connection, which must be `known`, or a
    standby of it that took over after the commit at the LSN `after`.

    Raises:
        SlotError: it is another server, or lacks transactions that are in the log.
    """
    cursor = await connection.execute("IDENTIFY_SYSTEM")
    row = await cursor.fetchone()
    assert row is not None
    found = Server(str(row[0]), int(row[1]))
    if known is None or found == known:
        return found
    if found.system_identifier != known.system_identifier:
        raise SlotError(
            f"DATABASE_URL leads to another server (system identifier {found.system_identifier}) "
            f"than the log came from ({known.system_identifier}); correct it, or drop the slot "
            f"{slot_name} there if it has one, {_ANEW}",
            slot_name,
        )
    left_at = await _left_at(connection, known.timeline, found.timeline)
    if left_at is None or left_at <= after:
        raise SlotError(
            f"the server is on timeline {found.timeline}, which lacks transactions that the log "
            f"has from timeline {known.timeline}: a standby took over without them; drop the slot "
            f"{slot_name}, {_ANEW}",
            slot_name,
        )
    return found


async def _left_at(connection: psycopg.AsyncConnection, timeline: int, present: int) -> Lsn | None:
    """Return where the history of the timeline `present` left `timeline`; None if it never was on
    it."""
    query = sql.SQL("TIMELINE_HISTORY {}").format(present)
    try:
        cursor = await connection.execute(query)
    except psycopg.Error:
        return None  # the first timeline has no history
    row = await cursor.fetchone()
    assert row is not None
    content = row[1]
    text = content.decode() if isinstance(content, bytes) else str(content)
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 2 and fields[0] == str(timeline):
            return Lsn.parse(fields[1])
    return None
