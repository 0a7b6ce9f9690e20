"""Deliver a database's messages in a thread of its own: capture waits for nothing that they do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, Self, TypeVar

from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.cursors.store import CursorStore
from triggerkit.consumers.pull.notifier import Notifier
from triggerkit.consumers.retention import CursorProgress
from triggerkit.delivery.consumer_delivery import CredentialsFor
from triggerkit.delivery.direct.way import DirectWay
from triggerkit.delivery.kafka.way import KafkaWay
from triggerkit.delivery.loop import DeliveryLoop
from triggerkit.delivery.push import Pusher
from triggerkit.delivery.tunnel.way import TunnelWay
from triggerkit.log.entry import Entry
from triggerkit.log.followed import Moves, note_moves
from triggerkit.log.reader import LogReader
from triggerkit.state.event_loop import run_loop

#: Bytes of entries on their way to the deliveries: what is beyond is read back from the log.
MOST_BYTES = 64 * 1024 * 1024

T = TypeVar("T")


class DeliveryThread:
    """The deliveries as capture sees them: from its loop, it tells them what was appended."""

    def __init__(
        self,
        states: Callable[[], AsyncConnectionPool],
        database_id: int,
        pusher: Callable[[], Pusher],
        credentials_for: CredentialsFor,
        direct: Callable[[AsyncConnectionPool], DirectWay],
        head: int,
        kafka: Callable[[AsyncConnectionPool], KafkaWay] | None = None,
        grace_s: Callable[[], float] = lambda: 0.0,
        tunnels: Callable[[AsyncConnectionPool], TunnelWay] | None = None,
    ) -> None:
        """`states`, `pusher`, `direct`, `kafka` and `tunnels` are made in the thread; `head` is the
        log's last position. `grace_s` is asked at the end how long what is under way may take."""
        self._grace_s = grace_s
        self._states = states
        self._database_id = database_id
        self._pusher = pusher
        self._credentials_for = credentials_for
        self._direct = direct
        self._kafka = kafka
        self._tunnels = tunnels
        #: The last position in the log.
        self.head = head
        self._capture = asyncio.get_running_loop()
        self._begun = asyncio.Event()
        self._ended: asyncio.Future[None] = self._capture.create_future()
        self._is_stopping = False
        # What is set in the thread, before it has begun.
        self._loop: asyncio.AbstractEventLoop
        self._main_task: asyncio.Task[None] | None = None
        self._reader: LogReader
        self._deliveries: DeliveryLoop
        self._notifier: Notifier
        self._bytes_under_way = 0

    @asynccontextmanager
    async def running(self, group: asyncio.TaskGroup) -> AsyncIterator[Self]:
        """Deliver meanwhile; what ends the deliveries ends `group`, too."""
        threading.Thread(target=self._run, name="deliveries", daemon=True).start()
        watching = group.create_task(self._watch(), name="deliveries")
        begun = asyncio.create_task(self._begun.wait())
        try:
            await asyncio.wait({watching, begun}, return_when=asyncio.FIRST_COMPLETED)
            if not self._begun.is_set():
                # Its error is the group's.
                await asyncio.Event().wait()
            yield self
        finally:
            begun.cancel()
            await self._stop()
            watching.cancel()

    def appended(
        self, entries: list[Entry], head: int, is_growing: bool, moves: Moves | None = None
    ) -> None:
        """Note an append, as `LogReader.appended` does."""
        self.head = head
        size_bytes = sum(entry.size_bytes for entry in entries)
        if self._bytes_under_way + size_bytes > MOST_BYTES:
            moves = note_moves(entries, {}) if moves is None else moves
            entries, size_bytes = [], 0
        self._bytes_under_way += size_bytes
        with suppress(RuntimeError):
            # The loop is closed: the group is about to end.
            self._loop.call_soon_threadsafe(
                self._take_in, entries, head, size_bytes, is_growing, moves
            )

    async def refresh(self) -> None:
        """Take in what was changed in the state."""
        await self._call(self._refresh)

    async def progress(self) -> list[CursorProgress]:
        """Return how far each lane is that has nothing under way."""

        async def progress() -> list[CursorProgress]:
            return self._deliveries.progress()

        return await self._call(progress)

    async def _watch(self) -> None:
        await asyncio.shield(self._ended)

    async def _stop(self) -> None:
        # Set before the look and looked at after the task is set: one of the two sees the other.
        self._is_stopping = True
        try:
            await self._drain()
        finally:
            if self._main_task is not None and not self._ended.done():
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._main_task.cancel)
            await asyncio.wait({self._ended})

    async def _drain(self) -> None:
        """Let what is under way end, so that nobody gets it again."""
        grace_s = self._grace_s()
        if grace_s <= 0 or not self._begun.is_set():
            return
        draining = asyncio.create_task(self._call(partial(self._end_lanes, grace_s)))
        await asyncio.wait({draining, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()

    async def _call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        called = work()
        try:
            under_way = asyncio.run_coroutine_threadsafe(called, self._loop)
        except RuntimeError:
            # The loop is closed: whoever calls is about to be canceled, with the group.
            called.close()
            await asyncio.Event().wait()
            raise
        return await asyncio.wrap_future(under_way)

    # What runs in the thread.

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            run_loop(self._deliver())
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):
            self._capture.call_soon_threadsafe(self._end, error)

    async def _deliver(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._loop, self._main_task = asyncio.get_running_loop(), task
        if self._is_stopping:
            return
        async with (
            self._states() as states,
            self._pusher() as pusher,
            AsyncExitStack() as at_end,
            asyncio.TaskGroup() as group,
        ):
            store = CursorStore(states, self._database_id)
            self._reader = LogReader(states, self._database_id, self.head)
            direct = self._direct(states)
            kafka = None if self._kafka is None else self._kafka(states)
            tunnels = None if self._tunnels is None else self._tunnels(states)
            self._deliveries = DeliveryLoop(
                self._reader, store, pusher, self._credentials_for, direct, group, kafka, tunnels
            )
            # Behind the group: no lane calls code of the project any more.
            at_end.push_async_callback(direct.close)
            if kafka is not None:
                at_end.push_async_callback(kafka.close)
            if tunnels is not None:
                at_end.push_async_callback(tunnels.close)
            at_end.push_async_callback(self._deliveries.end)
            self._notifier = Notifier(self._reader, states, self._database_id, group)
            self._capture.call_soon_threadsafe(self._begun.set)
            await asyncio.Event().wait()

    def _take_in(
        self,
        entries: list[Entry],
        head: int,
        size_bytes: int,
        is_growing: bool,
        moves: Moves | None,
    ) -> None:
        self._reader.appended(entries, head, is_growing=is_growing, moves=moves)
        self._capture.call_soon_threadsafe(self._took_in, size_bytes)

    async def _end_lanes(self, grace_s: float) -> None:
        await self._deliveries.drain(grace_s)

    async def _refresh(self) -> None:
        await self._deliveries.refresh()
        await self._notifier.refresh()

    # What the thread calls in capture's loop.

    def _took_in(self, size_bytes: int) -> None:
        self._bytes_under_way -= size_bytes

    def _end(self, error: BaseException | None) -> None:
        if error is None or isinstance(error, asyncio.CancelledError):
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)
            # Also read when nobody watches any more.
            self._ended.exception()
