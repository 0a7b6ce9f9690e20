"""The server that a database's log was read from, as the state knows it."""

from __future__ import annotations

import logging

from psycopg_pool import AsyncConnectionPool

from triggerkit.errors import SlotError
from triggerkit.replication.slot.source_server import Server

logger = logging.getLogger(__name__)

_KNOWN = "SELECT system_identifier, timeline FROM triggerkit.databases WHERE id = %s"

_EPOCH = "SELECT slot_epoch, slot_name FROM triggerkit.databases WHERE id = %s"

_FOLLOW = "UPDATE triggerkit.databases SET timeline = %s WHERE id = %s AND system_identifier = %s"


async def known_server(pool: AsyncConnectionPool, database_id: int) -> Server | None:
    """Return the server that the slot was made on, or the last standby that took over from it."""
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
        "a standby took over as the source: the stream continues there, on timeline %s after %s",
        found.timeline,
        known.timeline,
    )
    async with pool.connection() as connection:
        await connection.execute(_FOLLOW, [found.timeline, database_id, found.system_identifier])


async def require_slot_epoch(pool: AsyncConnectionPool, database_id: int, epoch: int) -> None:
    """Go on only if the slot is still the one whose progress was read.

    Raises:
        SlotError: another one was made meanwhile, by whose LSNs that progress means nothing.
    """
    async with pool.connection() as connection:
        cursor = await connection.execute(_EPOCH, [database_id])
        row = await cursor.fetchone()
    if row is not None and row[0] != epoch:
        raise SlotError(
            f"the slot {row[1]} was recreated meanwhile; starting with the new one", row[1]
        )
