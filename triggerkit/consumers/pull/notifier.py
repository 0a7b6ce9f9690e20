"""Tell receives that wait for messages that the log moved: the stream notifies, they wake up.

It is a notification of Postgres, on the channel `triggerkit_log`: "database 1" when its log moved,
"consumer 1" when somebody let go of what others may have, "group 1" likewise for the events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial

import psycopg
from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.definition import IS_PULLED
from triggerkit.errors import CannotConnect
from triggerkit.log.entry import PARTITIONS
from triggerkit.log.reader import LogReader
from triggerkit.state.channels import CONSUMERS, LOG
from triggerkit.state.connect import connect
from triggerkit.state.recovery import Recovery
from triggerkit.state.task_group import start_in

logger = logging.getLogger(__name__)

#: Seconds between two notifications at least: who was woken once sees all that came meanwhile.
PAUSE_S = 0.01

_IS_ANY_READ = f"""
SELECT EXISTS (SELECT FROM triggerkit.consumers c
               WHERE c.database_id = %(database)s AND {IS_PULLED} AND c.state = 'active')
    OR EXISTS (SELECT FROM triggerkit.topics t WHERE t.database_id = %(database)s AND t.enabled)
"""  # noqa: S608 - of constants

_NOTIFY = f"SELECT pg_notify('{LOG}', 'database ' || %s)"


class Notifier:
    """Notify when the log of one database moves, as long as it has a consumer that is pulled or
    topics."""

    def __init__(
        self,
        reader: LogReader,
        pool: AsyncConnectionPool,
        database_id: int,
        group: asyncio.TaskGroup,
    ) -> None:
        self._reader = reader
        self._pool = pool
        self._database_id = database_id
        self._group = group
        self._moved = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def refresh(self) -> None:
        """Begin when the first consumer is pulled or topic declared, stop when none is any more."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_IS_ANY_READ, {"database": self._database_id})
            is_any = await cursor.fetchone() == (True,)
        if is_any and not self._tasks:
            watches = [partial(self._watch, partition) for partition in range(PARTITIONS)]
            works: list[Callable[[], Coroutine[None, None, None]]] = [self._notify, *watches]
            self._tasks = [start_in(self._group, work, "notifier") for work in works]
        elif not is_any:
            for task in self._tasks:
                task.cancel()
            self._tasks = []

    async def _watch(self, partition: int) -> None:
        # From the log's start: what came before this began to watch is notified of too.
        after = 0
        while True:
            await self._reader.wait(partition, after)
            after = self._reader.head
            self._moved.set()

    async def _notify(self) -> None:
        while True:
            await self._moved.wait()
            self._moved.clear()
            async with self._pool.connection() as connection:
                await connection.execute(_NOTIFY, [self._database_id])
            await asyncio.sleep(PAUSE_S)


class Listener:
    """Listen for all who wait in this process, over one connection.

    It listens from the first who waits on. Those who wait when the connection is lost wake up.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def woken_by(self, names: Sequence[str]) -> AsyncIterator[asyncio.Event]:
        """Yield an event that is set when one of `names`, such as "consumer 1", is notified of.

        Whatever happens after this was entered sets it; so look after entering.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="notifier listener")
        woken = asyncio.Event()
        for name in names:
            self._waiting.setdefault(name, set()).add(woken)
        try:
            await self._listening.wait()
            yield woken
        finally:
            for name in names:
                self._waiting[name].discard(woken)
                if not self._waiting[name]:
                    del self._waiting[name]

    async def close(self) -> None:
        """Stop listening; who waits wakes up."""
        self.wake_all()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def wake_all(self) -> None:
        """Let everybody look."""
        for events in list(self._waiting.values()):
            for woken in events:
                woken.set()

    async def _listen(self) -> None:
        recovery = Recovery(
            "the connection that waits for messages",
            (psycopg.OperationalError, CannotConnect),
            logger,
        )
        while True:
            async with recovery.attempt():
                try:
                    await self._receive(recovery)
                finally:
                    self._listening.clear()
                    self.wake_all()

    async def _receive(self, recovery: Recovery) -> None:
        async with await connect(self._dsn, "triggerkit waiting") as connection:
            await connection.execute(f"LISTEN {LOG}")
            # Pauses, replays and retries may have something for those who wait, or end their wait.
            await connection.execute(f"LISTEN {CONSUMERS}")
            recovery.succeeded()
            self._listening.set()
            async for notify in connection.notifies():
                if notify.channel != LOG:
                    self.wake_all()
                for woken in self._waiting.get(notify.payload, ()):
                    woken.set()
