"""Waiting for runs to end: one connection listens for all who wait in a process."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import NamedTuple

import psycopg
from psycopg_pool import AsyncConnectionPool

from triggerkit.errors import TriggerkitError
from triggerkit.state.channels import ENDED
from triggerkit.state.connect import connect
from triggerkit.state.faults import is_away

#: Seconds between tries while Postgres is away.
RETRY_S = 0.5

_STATE = """
SELECT status, output, error ->> 'message', finished_at IS NOT NULL, awaited FROM triggerkit.runs
WHERE id = %s
"""

#: Has the end of a run told that was made without anybody who waits.
_AWAIT = """
UPDATE triggerkit.runs SET awaited = true WHERE id = %s AND finished_at IS NULL AND NOT awaited
"""


class End(NamedTuple):
    """The end of a run. `output` is JSON, `error` the last attempt's message."""

    run_id: str
    status: str
    output: str | None
    error: str | None


class Ends:
    """For use on one event loop."""

    def __init__(self, dsn: str, pool: AsyncConnectionPool) -> None:
        self._dsn = dsn
        self._pool = pool
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._listening = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None

    async def of(self, run_id: str, timeout_s: float | None) -> End:
        """Return the end of a run; waits for it.

        Raises:
            TimeoutError: it did not come within `timeout_s`.
            TriggerkitError: there is no such run.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                future = asyncio.get_running_loop().create_future()
                self._waiting[run_id].add(future)
                try:
                    await self._listen()
                    if end := await self._look(run_id):
                        return end
                    await future
                finally:
                    self._waiting[run_id].discard(future)
                    if not self._waiting[run_id]:
                        del self._waiting[run_id]

    async def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)

    async def _look(self, run_id: str) -> End | None:
        while True:
            try:
                async with self._pool.connection() as connection:
                    row = await (await connection.execute(_STATE, [run_id])).fetchone()
                    if row is not None and not row[3] and not row[4]:
                        await connection.execute(_AWAIT, [run_id])
                        row = await (await connection.execute(_STATE, [run_id])).fetchone()
                break
            except psycopg.Error as error:
                if not is_away(error):
                    raise
                await asyncio.sleep(RETRY_S)
        if row is None:
            raise TriggerkitError(f"no run has the id {run_id!r}; was it removed by retention?")
        status, output, message, is_finished, _ = row
        return End(run_id, status, output, message) if is_finished else None

    async def _listen(self) -> None:
        if self._listener is None or self._listener.done():
            self._listener = asyncio.create_task(self._hear())
        await self._listening.wait()

    async def _hear(self) -> None:
        """Listen as long as somebody waits, through losses of the connection."""
        while self._waiting:
            with contextlib.suppress(psycopg.Error, TriggerkitError):
                async with await connect(self._dsn, "triggerkit ends") as connection:
                    await connection.execute(f"LISTEN {ENDED}")
                    self._listening.set()
                    # What ended while nobody listened is seen by looking.
                    self._tell(*self._waiting)
                    while self._waiting:
                        async for notify in connection.notifies(timeout=RETRY_S, stop_after=1):
                            self._tell(notify.payload)
            self._listening.clear()
            await asyncio.sleep(RETRY_S if self._waiting else 0)

    def _tell(self, *run_ids: str) -> None:
        for run_id in run_ids:
            for future in self._waiting.get(run_id, ()):
                if not future.done():
                    future.set_result(None)
