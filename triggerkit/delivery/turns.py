"""Small batches of a busy consumer wait for each other, so that they become larger ones."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

#: Pushes of a consumer under way at which it counts as busy: one is read while another is stored.
BUSY = 2

#: Seconds a batch that is not full waits at most.
LINGER_S = 0.25


class Turns:
    """What the lanes of one consumer know of each other's pushes.

    An idle consumer's batch goes at once, and so does a full one. Of a busy consumer each batch
    that is not full goes when another is answered: what a push costs is then paid for more
    messages, however fast the endpoint is (compare Nagle's algorithm, RFC 896).
    """

    def __init__(self) -> None:
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Return when a batch that is not full may go."""
        if self._under_way < BUSY:
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await turn

    def sending(self) -> None:
        """A push is sent."""
        self._under_way += 1

    def answered(self) -> None:
        """A push has ended: the batch that waits longest goes."""
        self._under_way -= 1
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
