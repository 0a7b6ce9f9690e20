"""Lanes of one consumer wait for each other: with small batches when busy, and at a truncate."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from triggerkit.consumers.cursors.cursor import Cursor
from triggerkit.consumers.cursors.store import Elsewhere
from triggerkit.log.entry import Entry

#: Pushes of a consumer under way at which it counts as busy: one is read while another is stored.
BUSY = 1

#: Seconds a batch that is not full waits at most.
LINGER_S = 0.5

#: Returns where a lane is, past what its consumer does not follow.
Settle = Callable[[], Cursor]

#: Seconds between two looks at what other processes stored.
LOOK_S = 0.2


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


class Barrier:
    """Let the lanes of one consumer wait for each other.

    A truncate is about the rows of all partitions. Its lane sends it once all others are done with
    what is before it; they find its echo in their partitions, where they wait until it is done.
    """

    def __init__(self, settles: Sequence[Settle], elsewhere: Elsewhere | None = None) -> None:
        self._settles = settles
        self._elsewhere = elsewhere
        self._is_awaited = False
        self._changed = asyncio.Event()

    def tell(self) -> None:
        """Note that a lane moved, or that a retry has ended."""
        if self._is_awaited:
            self._is_awaited = False
            self._changed.set()

    async def arrived(self, truncate: Entry) -> None:
        """Return once all that is before `truncate` is done."""
        last = truncate.position - 1
        await self.until(lambda: all(settle().position >= last for settle in self._settles))
        await self._until_elsewhere(lambda there: all(p >= last for p in there.values()))

    async def passed(self, echo: Entry) -> None:
        """Return once the truncate of `echo` is done, or is not under way."""
        last, home = echo.truncate_position, echo.home_partition
        await self.until(
            lambda: all(c.position >= last for s in self._settles if (c := s()).partition == home)
        )
        await self._until_elsewhere(lambda there: there.get(home, last) >= last)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition` holds, which something that is told of brings about."""
        while not condition():
            self._changed.clear()
            self._is_awaited = True
            await self._changed.wait()

    async def _until_elsewhere(self, condition: Callable[[Mapping[int, int]], bool]) -> None:
        """Return once `condition` holds of what other processes stored: each lane stores where it
        is before it waits."""
        if self._elsewhere is not None:
            while not condition(await self._elsewhere()):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
