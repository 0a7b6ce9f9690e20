"""Working on bulks in `serve`: one of all that are served does, and each resumes what another left.

It holds an advisory lock of a connection, so that whoever is killed is followed at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from triggerkit.errors import CannotConnect, NotDurable, TriggerkitError
from triggerkit.runs.client import Client
from triggerkit.runs.transport.base import TransportAway
from triggerkit.state.connect import connect
from triggerkit.state.faults import is_away
from triggerkit.tasks.task import Task
from triggerkit.web.bulk.steps import STEPS
from triggerkit.web.bulk.store import (
    Bulk,
    fail_bulk,
    is_any_active,
    next_bulk,
    record_part,
    take_turn,
)

logger = logging.getLogger(__name__)

#: Seconds between two looks for what was asked for, or left by another process.
LOOK_S = 1.0

#: The lock of who works on bulks.
BULK_LOCK = 0x7472_6267

_LOCK = "SELECT pg_try_advisory_lock(%s)"


class BulkWorker:
    """Works on bulks, on one event loop."""

    def __init__(self, tasks: Iterable[Task[Any, Any, Any]]) -> None:
        self._tasks = {task.name: task for task in tasks}

    @asynccontextmanager
    async def working(self, client: Client) -> AsyncIterator[None]:
        """Work for as long as this is open. A step that it cuts off is done again by another."""
        work = asyncio.create_task(self._run(client))
        try:
            yield
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _run(self, client: Client) -> None:
        while True:
            try:
                async with client.pool.connection() as state:
                    is_wanted = await is_any_active(state)
                if is_wanted:
                    await self._work(client)
            except (psycopg.Error, PoolTimeout, TriggerkitError, TransportAway) as error:
                # The step is done again. That a server is away is told by who keeps a connection.
                if not isinstance(error, (CannotConnect, TransportAway)) and not is_away(error):
                    logger.warning("bulks wait: %s", type(error).__name__)
            except Exception as error:
                # Whoever works on bulks does so for as long as the process runs.
                logger.exception("bulks wait; please report it", exc_info=_without_message(error))
            await asyncio.sleep(LOOK_S)

    async def _work(self, client: Client) -> None:
        async with await connect(client.settings.state_dsn, "triggerkit bulk") as state:
            row = await (await state.execute(_LOCK, [BULK_LOCK])).fetchone()
            if row is None or not row[0]:
                return
            while (bulk := await next_bulk(state)) is not None:
                await self._step(client, state, bulk)

    async def _step(self, client: Client, state: psycopg.AsyncConnection, bulk: Bulk) -> None:
        # Before it is known how the step ends: the others' turns come even if it cannot be done.
        await take_turn(state, bulk)
        try:
            part = await STEPS[bulk.action](client, self._tasks, bulk)
        except (PoolTimeout, CannotConnect, NotDurable, TransportAway):
            raise
        except TriggerkitError as error:
            await fail_bulk(state, bulk, str(error))
        except Exception as error:
            if is_away(error):
                raise
            # Without its message, which may have values.
            logger.exception("a bulk failed; please report it", exc_info=_without_message(error))
            await fail_bulk(state, bulk, f"{type(error).__name__}: the log of serve has it")
        else:
            await record_part(state, bulk, part)


def _without_message(error: Exception) -> Exception:
    return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
