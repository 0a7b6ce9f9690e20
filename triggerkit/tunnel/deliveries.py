"""Deliver what comes through a tunnel: each push once, also where its answer was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from triggerkit.tunnel.port import Outcome, Ports
from triggerkit.tunnel.wire import Push

#: Seconds for which an answer is kept that could not be sent.
KEPT_S = 600.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A push and what came of it, for the terminal."""

    at: datetime
    push: Push
    body: bytes
    outcome: Outcome

    @property
    def batch_id(self) -> str:
        """The id that stays the same for all attempts."""
        return self.push.headers.get("webhook-id", "")


class Deliveries:
    """Delivers pushes, and tells of each.

    A push outlasts the connection it came by. When the connection ends first, the server sends it
    again over the next one: the same id with the same body gets the answer of the first, under way
    or taken, and the app does not get it twice.
    """

    def __init__(self, ports: Ports, tell: Callable[[Delivery], None]) -> None:
        self._ports = ports
        self._tell = tell
        self._under_way: dict[tuple[str, str, bytes], asyncio.Task[Outcome]] = {}

    async def deliver(self, push: Push, body: bytes) -> Outcome:
        """Return what came of a push; `answered` follows once that was sent."""
        if push.again:
            return await self._delivered(push, body)
        key = _key(push, body)
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._delivered(push, body), name="delivery")
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        # Of a connection that ends, only the waiting ends.
        return await asyncio.shield(task)

    def answered(self, push: Push, body: bytes) -> None:
        """Note that the answer was sent: what comes by this id next is another attempt."""
        self._under_way.pop(_key(push, body), None)

    async def until_done(self) -> None:
        """Return once nothing is under way."""
        if tasks := [task for task in self._under_way.values() if not task.done()]:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """End what is under way."""
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        self._ports.close()

    async def _delivered(self, push: Push, body: bytes) -> Outcome:
        at = datetime.now().astimezone()
        outcome = await self._ports.deliver(push, body)
        self._tell(Delivery(at, push, body, outcome))
        return outcome

    def _ended(self, key: tuple[str, str, bytes], task: asyncio.Task[Outcome]) -> None:
        if task.cancelled() or not task.result().is_taken:
            # It is to be tried again, not to fail again.
            self._under_way.pop(key, None)
        elif self._under_way.get(key) is task:
            loop = asyncio.get_running_loop()
            loop.call_later(KEPT_S, self._under_way.pop, key, None)


def _key(push: Push, body: bytes) -> tuple[str, str, bytes]:
    return push.endpoint, push.headers.get("webhook-id", ""), sha256(body).digest()
