"""The server that a database's log was read from, as the state knows it."""

from __future__ import annotations

import logging

from psycopg_pool import AsyncConnectionPool

from triggerkit.replication.origin import Server

logger = logging.getLogger(__name__)

_KNOWN = "SELECT system_identifier, timeline FROM triggerkit.databases WHERE id = %s"

_FOLLOW = "UPDATE triggerkit.databases SET timeline = %s WHERE id = %s AND system_identifier = %s"


async def known_server(pool: AsyncConnectionPool, database_id: int) -> Server | None:
    """The server that the slot was made on, or the last standby that took over from it."""
    async with pool.connection() as connection:
        cursor = await connection.execute(_KNOWN, [database_id])
        row = await cursor.fetchone()
    if row is None or None in row:
        return None
    return Server(*row)


async def follow_server(
    pool: AsyncConnectionPool, database_id: int, known: Server | None, found: Server
) -> None:
    """Remember the timeline of `found`, where the stream goes on."""
    if known is None or found == known:
        return
    logger.warning(
        "a standby took over as the source: the stream goes on there, on timeline %s after %s",
        found.timeline,
        known.timeline,
    )
    async with pool.connection() as connection:
        await connection.execute(_FOLLOW, [found.timeline, database_id, found.system_identifier])
