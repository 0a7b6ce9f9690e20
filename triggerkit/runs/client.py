"""Open what triggering needs: the state database, the transport and the settings."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

import psycopg
from psycopg_pool import AsyncConnectionPool

from triggerkit.errors import CannotConnect, PreflightFailed
from triggerkit.runs.accept.acceptor import Acceptor
from triggerkit.runs.accept.within import accept_within, accept_within_async
from triggerkit.runs.results import End, Ends
from triggerkit.runs.run import Handle, NewRun, short_key
from triggerkit.runs.session import by_index
from triggerkit.runs.transport.base import AsyncTransport
from triggerkit.runs.transport.open import open_async_transport
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, pool

T = TypeVar("T")

#: Seconds for which a thread waits in one go: a run that waits for another can be stopped then.
LOOK_S = 0.25

#: Has an idempotency key of a task forgotten.
_FORGET_KEY = """
UPDATE triggerkit.runs SET idempotency_key = NULL WHERE task = %s AND idempotency_key = %s
"""


@dataclass(slots=True)
class Client:
    """An open client; use it on the event loop that opened it."""

    settings: Settings
    pool: AsyncConnectionPool
    transport: AsyncTransport
    acceptor: Acceptor
    ends: Ends

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Connect.

        Raises:
            CannotConnect: the state database does not answer.
            PreflightFailed: the schema `triggerkit` is not there.
        """
        namespace = await installation(settings)
        states = pool(
            by_index(settings.state_dsn), "triggerkit client", size=settings.triggerkit_pool_size
        )
        await states.open()
        transport = open_async_transport(settings, namespace)
        ends = Ends(settings.state_dsn, states)
        return cls(settings, states, transport, Acceptor(states, transport), ends)

    async def close(self) -> None:
        """Close the connections."""
        await self.acceptor.close()
        await self.ends.close()
        await self.transport.close()
        await self.pool.close()

    async def accept(self, runs: Sequence[NewRun]) -> list[Handle]:
        """Make `runs` durable and push them; see `Acceptor.accept`."""
        return await self.acceptor.accept(runs)


async def installation(settings: Settings) -> str:
    """Return the id of this installation: its keys in Redis carry it."""
    async with await connect(settings.state_dsn, "triggerkit") as connection:
        cursor = await connection.execute("SELECT to_regclass('triggerkit.installation')::text")
        row = await cursor.fetchone()
        if row is None or row[0] is None:
            raise PreflightFailed(
                "the schema triggerkit is not in the state database; run: triggerkit upgrade"
            )
        cursor = await connection.execute("SELECT id::text FROM triggerkit.installation")
        row = await cursor.fetchone()
        if row is None:
            raise CannotConnect("triggerkit.installation is empty; run: triggerkit upgrade")
        return str(row[0])


class Portal:
    """A client for callers without an event loop of their own: it has one in a thread.

    Opened by its first use, with the settings of the working directory. It is the usual `Door`.
    """

    def __init__(self, load: Callable[[], Settings] = Settings.load) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._opening = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client | None = None

    def now(self) -> datetime:
        """Return the time that delays are counted from."""
        return datetime.now(UTC)

    def accept(self, runs: Sequence[NewRun]) -> list[Handle]:
        """Accept `runs` and wait for the handles; see `Client.accept`."""
        return self._run(self._accept(runs))

    async def accept_async(self, runs: Sequence[NewRun]) -> list[Handle]:
        """Do the same from any event loop, without blocking it."""
        return await self._run_async(self._accept(runs))

    def accept_within(
        self, connection: psycopg.Connection[Any], runs: Sequence[NewRun]
    ) -> list[Handle]:
        """Accept `runs` in the transaction of `connection`; see `accept_within`."""
        return accept_within(connection, runs)

    async def accept_within_async(
        self, connection: psycopg.AsyncConnection[Any], runs: Sequence[NewRun]
    ) -> list[Handle]:
        """Do the same for an asynchronous connection."""
        return await accept_within_async(connection, runs)

    def wait(self, run_id: str, timeout_s: float | None) -> End:
        """Wait for the end of an awaited run; see `Ends.of`."""
        return self._run(self._wait(run_id, timeout_s))

    async def wait_async(self, run_id: str, timeout_s: float | None) -> End:
        """Do the same from any event loop, without blocking it."""
        return await self._run_async(self._wait(run_id, timeout_s))

    def forget_key(self, task: str, key: str) -> bool:
        """Have an idempotency key of `task` forgotten; False when no run has it."""
        return self._run(self._forget_key(task, key))

    def forget(self) -> None:
        """In a process that was forked: the thread of the loop is in its parent alone, and so are
        the connections."""
        self._lock = threading.Lock()
        self._opening = asyncio.Lock()
        self._loop = None
        self._client = None

    async def client(self) -> Client:
        """Return the open client; only for use on the portal's own loop."""
        async with self._opening:
            if self._client is None:
                self._client = await Client.open(self._load())
            return self._client

    def close(self) -> None:
        """Close the client; a later use opens it again."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._running_loop())
        try:
            # In one long wait, nothing that is raised in this thread from outside would be seen.
            while not wait([future], LOOK_S).done:
                pass
            return future.result()
        finally:
            future.cancel()

    async def _run_async(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._running_loop())
        return await asyncio.wrap_future(future)

    async def _wait(self, run_id: str, timeout_s: float | None) -> End:
        return await (await self.client()).ends.of(run_id, timeout_s)

    async def _forget_key(self, task: str, key: str) -> bool:
        async with (await self.client()).pool.connection() as connection:
            return (await connection.execute(_FORGET_KEY, [task, short_key(key)])).rowcount > 0

    async def _accept(self, runs: Sequence[NewRun]) -> list[Handle]:
        return await (await self.client()).accept(runs)

    async def _close(self) -> None:
        async with self._opening:
            if self._client is not None:
                await self._client.close()
                self._client = None

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="triggerkit portal", daemon=True
                ).start()
            return self._loop


#: The process's portal; it connects when something is triggered, not before.
portal = Portal()
os.register_at_fork(after_in_child=portal.forget)
