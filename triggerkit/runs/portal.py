"""The process's way to the runs, for callers with and without an event loop of their own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import wait
from datetime import UTC, datetime
from typing import Any, TypeVar

from triggerkit.runs.accept.foreign import async_connection, sync_connection
from triggerkit.runs.accept.insert import FORGET_KEY
from triggerkit.runs.accept.within import accept_within, accept_within_async
from triggerkit.runs.admin.browse import list_runs, show_run
from triggerkit.runs.admin.control import cancel_if_unfinished, reschedule_run
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.client import Client
from triggerkit.runs.results import End
from triggerkit.runs.run import ClaimedRun, NewRun, RunRef, short_key
from triggerkit.settings import Settings

T = TypeVar("T")

#: Who the audit says it was.
ACTOR = "code"

#: Seconds for which a thread waits in one go: a run that waits for another can be stopped then.
LOOK_S = 0.25


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

    def accept(self, runs: Sequence[NewRun]) -> list[RunRef]:
        """Accept `runs` and wait for the handles; see `Client.accept`."""
        return self._run(self._accept(runs))

    async def accept_async(self, runs: Sequence[NewRun]) -> list[RunRef]:
        """Do the same from any event loop, without blocking it."""
        return await self._run_async(self._accept(runs))

    def accept_within(self, connection: Any, runs: Sequence[NewRun]) -> list[RunRef]:
        """Accept `runs` in the transaction of `connection`; see `accept_within`."""
        return accept_within(sync_connection(connection), runs)

    async def accept_within_async(self, connection: Any, runs: Sequence[NewRun]) -> list[RunRef]:
        """Do the same for an asynchronous connection."""
        return await accept_within_async(await async_connection(connection), runs)

    def wait(self, run_id: str, timeout_s: float | None, waiter: ClaimedRun | None = None) -> End:
        """Wait for the end of an awaited run; see `Ends.of` and `Rooms.lent`."""
        return self._run(self._wait(run_id, timeout_s, waiter))

    async def wait_async(
        self, run_id: str, timeout_s: float | None, waiter: ClaimedRun | None = None
    ) -> End:
        """Do the same from any event loop, without blocking it."""
        return await self._run_async(self._wait(run_id, timeout_s, waiter))

    def forget_key(self, task: str, key: str) -> bool:
        """Have an idempotency key of `task` forgotten; False when no run has it."""
        return self._run(self._forget_key(task, key))

    def find(self, run_id: str) -> dict[str, Any] | None:
        """Return the run of this id whole, None when there is none; see `show_run`."""
        return self._run(self._find(run_id))

    async def find_async(self, run_id: str) -> dict[str, Any] | None:
        """Do the same from any event loop."""
        return await self._run_async(self._find(run_id))

    def search(self, wanted: RunFilter, limit: int) -> list[dict[str, Any]]:
        """Return the newest runs that fit, without payloads and outputs; see `list_runs`."""
        return self._run(self._search(wanted, limit))

    async def search_async(self, wanted: RunFilter, limit: int) -> list[dict[str, Any]]:
        """Do the same from any event loop."""
        return await self._run_async(self._search(wanted, limit))

    def cancel(self, run_id: str) -> bool:
        """Cancel a run; see `cancel_run`. False when it has ended already."""
        return self._run(self._cancel(run_id))

    async def cancel_async(self, run_id: str) -> bool:
        """Do the same from any event loop."""
        return await self._run_async(self._cancel(run_id))

    def reschedule(self, run_id: str, delay_s: float) -> None:
        """Have a run that waits start so much later from now; see `reschedule_run`."""
        self._run(self._reschedule(run_id, delay_s))

    async def reschedule_async(self, run_id: str, delay_s: float) -> None:
        """Do the same from any event loop."""
        await self._run_async(self._reschedule(run_id, delay_s))

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

    async def _wait(self, run_id: str, timeout_s: float | None, waiter: ClaimedRun | None) -> End:
        client = await self.client()
        async with client.rooms.lent(waiter):
            return await client.ends.of(run_id, timeout_s)

    async def _forget_key(self, task: str, key: str) -> bool:
        async with (await self.client()).pool.connection() as connection:
            return (await connection.execute(FORGET_KEY, [task, short_key(key)])).rowcount > 0

    async def _find(self, run_id: str) -> dict[str, Any] | None:
        async with (await self.client()).pool.connection() as connection:
            return await show_run(connection, run_id)

    async def _search(self, wanted: RunFilter, limit: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after: str | None = None
        async with (await self.client()).pool.connection() as connection:
            while len(found) < limit:
                page, after = await list_runs(
                    connection, wanted, limit=limit - len(found), after=after
                )
                found += page
                if after is None:
                    break
        return found

    async def _cancel(self, run_id: str) -> bool:
        return await cancel_if_unfinished(await self.client(), run_id, ACTOR)

    async def _reschedule(self, run_id: str, delay_s: float) -> None:
        await reschedule_run(await self.client(), run_id, delay_s, ACTOR)

    async def _accept(self, runs: Sequence[NewRun]) -> list[RunRef]:
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
