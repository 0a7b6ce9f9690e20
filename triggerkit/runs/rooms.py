"""Lend the room that runs of limited queues take while they wait: a chain of them would hang."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg_pool import AsyncConnectionPool

from triggerkit.runs.accept.insert import admit_on
from triggerkit.runs.keys import LOCK_QUEUES
from triggerkit.runs.run import ClaimedRun
from triggerkit.runs.transport.base import AsyncTransport
from triggerkit.state.turn import in_one_turn_async

logger = logging.getLogger(__name__)

#: Seconds between two looks whether there is room again.
LOOK_S = 0.2

_LEND = """
UPDATE triggerkit.runs SET gate = 'lent'
WHERE id = %s AND attempt = %s AND status || '' = 'executing' AND gate = 'open'
"""

#: What is not lent any more, as when the limit is gone, is not to be taken back.
_TAKE = """
UPDATE triggerkit.runs r SET gate = CASE WHEN coalesce((
        SELECT q.concurrency <= (SELECT count(*) FROM triggerkit.runs o
            WHERE o.queue = q.name AND o.gate = 'open')
        FROM triggerkit.queues q WHERE q.name = r.queue), false) THEN 'back' ELSE 'open' END
WHERE id = %s AND attempt = %s AND status || '' = 'executing' AND gate IN ('lent', 'back')
RETURNING gate = 'open'
"""


class Rooms:
    """For use on one event loop."""

    def __init__(self, pool: AsyncConnectionPool, transport: AsyncTransport) -> None:
        self._pool = pool
        self._transport = transport
        #: By run, how many others it waits for.
        self._waits: Counter[str] = Counter()

    @asynccontextmanager
    async def lent(self, waiter: ClaimedRun | None) -> AsyncIterator[None]:
        """Lend the room of `waiter` meanwhile, if it has any; then wait until it has it again.

        One that is stopped meanwhile ends without it.
        """
        if waiter is None or not waiter.open:
            yield
            return
        self._waits[waiter.id] += 1
        is_stopped = False
        try:
            if self._waits[waiter.id] == 1:
                await self._lend(waiter)
            yield
        except asyncio.CancelledError:
            is_stopped = True
            raise
        finally:
            self._waits[waiter.id] -= 1
            if not self._waits[waiter.id]:
                del self._waits[waiter.id]
                if not is_stopped:
                    await self._take_back(waiter)

    async def _lend(self, waiter: ClaimedRun) -> None:
        try:
            async with self._pool.connection() as connection:
                cursor = await connection.execute(_LEND, [waiter.id, waiter.attempt])
                ready = await admit_on(connection, [waiter.queue]) if cursor.rowcount else []
            await self._transport.push(ready)
        except psycopg.OperationalError as error:
            logger.warning("%s keeps its room while it waits (%s)", waiter.id, error)

    async def _take_back(self, waiter: ClaimedRun) -> None:
        while True:
            try:
                async with self._pool.connection() as connection:
                    _, rows = await in_one_turn_async(
                        connection,
                        [
                            (LOCK_QUEUES, [[waiter.queue]]),
                            (_TAKE, [waiter.id, waiter.attempt]),
                        ],
                    )
                if not rows or rows[0][0]:
                    return
            except psycopg.OperationalError as error:
                logger.warning("%s waits for Postgres to go on (%s)", waiter.id, error)
            await asyncio.sleep(LOOK_S)
