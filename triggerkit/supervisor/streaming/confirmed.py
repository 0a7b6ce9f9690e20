"""What the slot was told to be durable, compared with what the log knows of."""

from __future__ import annotations

import asyncio
import logging

from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.declare.plan import stored_consumers
from triggerkit.consumers.gap import mark_gap
from triggerkit.errors import Fenced
from triggerkit.log.writing import Writing
from triggerkit.lsn import Lsn

logger = logging.getLogger(__name__)

_KNOWN = "SELECT confirmed_lsn FROM triggerkit.databases WHERE id = %s"

_REMEMBER = """
UPDATE triggerkit.databases SET confirmed_lsn = greatest(confirmed_lsn, %s)
WHERE id = %s AND writer_epoch = %s
"""

#: Values of rows that the log has from before may be older than those that it lacks.
_BEGIN_ANEW = """
UPDATE triggerkit.databases SET epoch_position = next_position, confirmed_lsn = %s
WHERE id = %s AND writer_epoch = %s RETURNING epoch_position
"""


class Confirmed:
    """The positions that a database's slot is told, each remembered before.

    So a slot that was told more than is remembered shows that the log has lost its end: it was
    restored from a backup, or its server did not keep what it had committed.
    """

    def __init__(self, states: AsyncConnectionPool, writer: Writing) -> None:
        self._states = states
        self._writer = writer
        self._known: int | None = None
        self._is_compared = asyncio.Event()

    async def recall(self) -> None:
        """Read what is remembered; before the slot is looked at, so that it can only be less."""
        async with self._states.connection() as connection:
            cursor = await connection.execute(_KNOWN, [self._writer.database_id])
            row = await cursor.fetchone()
        self._known = None if row is None else row[0]

    async def compare(self, confirmed: Lsn) -> None:
        """Mark a gap if the slot was told more, `confirmed`, than the log knows of."""
        if self._known is not None and confirmed > self._known:
            await self._mark(Lsn(self._known), confirmed)
        self._is_compared.set()
        await self.remember(confirmed)

    async def remember(self, lsn: Lsn) -> None:
        """Make durable that the slot is going to be told `lsn`.

        Raises:
            Fenced: another writer has the log.
        """
        await self._is_compared.wait()
        async with self._states.connection() as connection:
            cursor = await connection.execute(
                _REMEMBER, [lsn, self._writer.database_id, self._writer.epoch]
            )
        if cursor.rowcount != 1:
            raise Fenced

    async def _mark(self, known: Lsn, confirmed: Lsn) -> None:
        writer = self._writer
        reason = (
            f"the log ends at {known}, but the slot has confirmed {confirmed}: the state was "
            "restored from a backup, or lost its end, and changes in between are missing"
        )
        async with self._states.connection() as connection, connection.transaction():
            consumers = await stored_consumers(connection, writer.database_id)
            await mark_gap(
                connection,
                [consumer.id for consumer in consumers],
                reason,
                from_lsn=int(known),
                to_lsn=int(confirmed),
            )
            cursor = await connection.execute(
                _BEGIN_ANEW, [confirmed, writer.database_id, writer.epoch]
            )
            row = await cursor.fetchone()
            if row is None:
                raise Fenced
        writer.epoch_position = int(row[0])
        logger.error("%s; read the tables anew with: triggerkit backfill start", reason)
