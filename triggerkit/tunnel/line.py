"""What goes over one connection: pushes come in, several at a time, and answers go out."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from triggerkit.tunnel.deliveries import Deliveries
from triggerkit.tunnel.port import Outcome
from triggerkit.tunnel.wire import (
    HEADERS,
    MAX_BODY_BYTES,
    Bodies,
    Push,
    Reply,
    Taken,
    Unanswered,
    pieces_of,
    written,
)


class Line:
    """Delivers what comes over one connection, and answers it there."""

    def __init__(self, socket: ClientConnection, deliveries: Deliveries) -> None:
        self._socket = socket
        self._deliveries = deliveries
        self._bodies = Bodies(MAX_BODY_BYTES)
        self._tasks: set[asyncio.Task[None]] = set()
        #: Whether nothing new is delivered.
        self.is_ending = False

    def begin(self, push: Push) -> None:
        """Take a push; its body follows, unless it is empty."""
        if self._bodies.begin(push) is not None:
            self._start(self._deliver(push, b""))

    async def add(self, frame: bytes) -> None:
        """Take a piece of a body, and let the server send the next."""
        found = self._bodies.add(frame)
        await self._socket.send(written(Taken(len(frame))))
        if found is not None and isinstance(push := found[0], Push):
            self._start(self._deliver(push, found[1]))

    async def until_answered(self) -> None:
        """Return once the server has the answers to what was taken."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def close(self) -> None:
        """Forget what waits for an answer; what is under way goes on."""
        for task in self._tasks:
            task.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="push")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, push: Push, body: bytes) -> None:
        if self.is_ending:
            return
        outcome = await self._deliveries.deliver(push, body)
        with suppress(ConnectionClosed):
            await self._answer(push.number, outcome)
            self._deliveries.answered(push, body)

    async def _answer(self, number: int, outcome: Outcome) -> None:
        response = outcome.response
        if response is None:
            status = 502 if outcome.is_closed else None
            error = outcome.error or "no answer"
            said = Unanswered(number, error, status, is_suspect=not outcome.is_closed)
            await self._socket.send(written(said))
            return
        headers = {name: response.headers[name] for name in HEADERS if name in response.headers}
        reply = Reply(number, response.status, headers, len(response.body), response.is_cut)
        await self._socket.send(written(reply))
        for piece in pieces_of(number, response.body):
            await self._socket.send(piece)
