"""Wait for messages: woken by the log, by the group, and to show that one still waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)

from starlette.requests import Request

from triggerkit.consumers.pull.notifier import Listener
from triggerkit.web.kafka.basic import Refused

#: Requests that wait in this process at most.
MAX_WAITING = 200

#: Seconds that one waits for the connection over which all wait.
LISTEN_S = 10

#: Seconds after which one that waits looks whether its user and its instance are still there.
LOOK_S = 3.0


class Wait:
    """One request that waits, until its time is up or its caller gone."""

    def __init__(
        self,
        written: asyncio.Event,
        changed: asyncio.Event,
        timeout_ms: int,
        gone: asyncio.Task[None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + timeout_ms / 1000
        self._written = written
        self._changed = changed
        self._gone = gone
        self._looks_at = 0.0
        self.is_stopping = False

    @property
    def has_left(self) -> bool:
        """Return whether the caller is gone."""
        return self._gone.done()

    @property
    def is_over(self) -> bool:
        """Return whether to answer what there is."""
        return self.has_left or self.is_stopping or self._loop.time() >= self._until

    def wake(self) -> None:
        """Have it look at once."""
        self._changed.set()

    def listen(self) -> bool:
        """Take what comes from now on for news; return whether to look at more than the log: at
        the group, and whether the user is still there."""
        is_due = self._changed.is_set() or self._loop.time() >= self._looks_at
        self._written.clear()
        self._changed.clear()
        return is_due

    def look_after(self, seconds: float) -> None:
        """Look at more than the log after this time at the latest."""
        self._looks_at = self._loop.time() + min(seconds, LOOK_S)

    async def news(self) -> None:
        """Return when there is something to look at, or nothing more to wait for."""
        timeout_s = max(0.0, min(self._looks_at, self._until) - self._loop.time())
        events = [asyncio.create_task(one.wait()) for one in (self._written, self._changed)]
        try:
            await asyncio.wait(events, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in events:
                one.cancel()


class Waiting:
    """All requests of this process that wait, over one connection that listens."""

    def __init__(self) -> None:
        self._listener: Listener | None = None
        self._waits: set[Wait] = set()
        #: Those that wait, and those that are about to.
        self._places = 0
        self._is_stopping = False

    def stop(self) -> None:
        """Have every request that waits answer, as the process is about to end."""
        self._is_stopping = True
        for wait in self._waits:
            wait.is_stopping = True
            wait.wake()

    async def close(self) -> None:
        """Stop listening."""
        self.stop()
        if self._listener is not None:
            await self._listener.close()

    def woken_by(
        self, dsn: str, names: Sequence[str]
    ) -> AbstractAsyncContextManager[asyncio.Event]:
        """Enter to be told of what is notified of `names`; see `Listener.woken_by`."""
        if self._listener is None:
            self._listener = Listener(dsn)
        return self._listener.woken_by(names)

    @asynccontextmanager
    async def of(
        self,
        request: Request,
        dsn: str,
        written: AbstractAsyncContextManager[asyncio.Event],
        timeout_ms: int,
        *groups: str,
    ) -> AsyncIterator[Wait]:
        """Yield the wait of a request, woken by what is `written`, and by what becomes of `groups`,
        such as "group 1".

        Raises:
            Refused: too many wait already.
        """
        async with AsyncExitStack() as stack:
            stack.enter_context(self._place())
            gone = asyncio.create_task(_disconnect(request))
            stack.callback(gone.cancel)
            try:
                async with asyncio.timeout(LISTEN_S):
                    woken = await stack.enter_async_context(written)
                    changed = await stack.enter_async_context(self.woken_by(dsn, groups))
            except TimeoutError:
                raise Refused(503, "the state database does not answer; try again") from None
            gone.add_done_callback(lambda _: changed.set())
            wait = Wait(woken, changed, timeout_ms, gone)
            wait.is_stopping = self._is_stopping
            self._waits.add(wait)
            stack.callback(self._waits.discard, wait)
            yield wait

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._places >= MAX_WAITING:
            headers = {"retry-after": "1"}
            raise Refused(503, f"{MAX_WAITING} requests are already waiting; try again", **headers)
        self._places += 1
        try:
            yield
        finally:
            self._places -= 1


async def _disconnect(request: Request) -> None:
    """Return when the caller is gone; the request's body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
