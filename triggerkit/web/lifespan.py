"""The lifespan of the project's app, whatever it is wrapped in: a mounted app's own is not run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Message

from triggerkit.errors import ConfigurationError


@asynccontextmanager
async def lifespan_of(app: ASGIApp) -> AsyncIterator[dict[str, Any]]:
    """Start `app` as a server does, and stop it at the end; yield the state that it has set up.

    An app that does not know the protocol is left as it is.

    Raises:
        ConfigurationError: it could not start, and says why.
        Exception: what its start raised.
    """
    talk = _Talk()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
    running = asyncio.ensure_future(app({**scope, "state": talk.state}, talk.receive, talk.send))
    try:
        if not await talk.has_started(running):
            yield {}
            return
        try:
            yield talk.state
        finally:
            await talk.stop(running)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class _Talk:
    """What is said between a server and an app that starts and stops."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self._asked: asyncio.Queue[Message] = asyncio.Queue()
        self._answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    async def receive(self) -> Message:
        return await self._asked.get()

    async def send(self, message: Message) -> None:
        if not self._answer.done():
            self._answer.set_result(message)

    async def has_started(self, running: asyncio.Future[None]) -> bool:
        """Start the app; False when it does not know how to be started."""
        answer = await self._ask("startup", running)
        if answer is None:
            return False
        if answer["type"] != "lifespan.startup.complete":
            await asyncio.wait({running})
            # The error itself says more than its text.
            running.result()
            said = answer.get("message") or "it does not say why"
            raise ConfigurationError(f"the app could not start: {said}")
        return True

    async def stop(self, running: asyncio.Future[None]) -> None:
        """Stop the app, and wait until it has ended."""
        self._answer = asyncio.get_running_loop().create_future()
        if await self._ask("shutdown", running) is not None:
            await asyncio.wait({running})

    async def _ask(self, what: str, running: asyncio.Future[None]) -> Message | None:
        """Return what the app answers; None when it ended instead."""
        self._asked.put_nowait({"type": f"lifespan.{what}"})
        answered: set[asyncio.Future[Any]] = {running, self._answer}
        await asyncio.wait(answered, return_when=asyncio.FIRST_COMPLETED)
        return self._answer.result() if self._answer.done() else None
