"""Small batches of a busy consumer wait for each other, so that they become larger ones."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

#: Pushes of a consumer under way at which it counts as busy: one is read while another is stored.
BUSY = 1

#: Seconds a batch that is not full waits at most.
LINGER_S = 0.5


class Turns:
    """Let the lanes of one consumer wait for each other's pushes.

    An idle consumer's batch goes at once, and so does a full one. Of a busy consumer each batch
    that is not full goes when another is answered: what a push costs is then paid for more
    messages, however fast the endpoint is (compare Nagle's algorithm, RFC 896).
    """

    def __init__(self) -> None:
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self, *, is_full: bool) -> None:
        """Return when a batch may go; `give_back` follows when it was answered."""
        if self._taken >= BUSY and not is_full:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await turn
        self._taken += 1

    def give_back(self) -> None:
        """Note that a push has ended: the batch that waits longest goes."""
        self._taken -= 1
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
