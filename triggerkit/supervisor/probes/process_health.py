"""Know of this process whether it lives, and whether it takes work."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

#: Seconds between two notes that an event loop still turns.
TURN_S = 1.0

#: Seconds without a turn after which a part of the process is taken for stuck. Longer than any
#: connection takes to give up: a server that is away is no reason to start a process again.
STUCK_S = 60.0

#: What is missing of a process that has only begun, and of one that was asked to end.
STARTING = "startup"
STOPPING = "stopping"


class ProcessHealth:
    """What the parts of a process tell of themselves; any thread may tell and ask.

    A process lives while all its parts turn, and is ready while it lacks nothing. A stream that
    stands by is ready: it takes over whenever that is needed.
    """

    def __init__(self, looks: Callable[[], Iterator[str]] | None = None) -> None:
        """`looks` yields what is missing beside what is told, whenever somebody asks."""
        self._lock = threading.Lock()
        self._turned_at: dict[str, float] = {}
        self._missing: set[str] = {STARTING}
        self._looks = looks
        self.role: str | None = None

    def turned(self, part: str) -> None:
        """Note that `part`, a thread or an event loop, turned."""
        with self._lock:
            self._turned_at[part] = time.monotonic()

    def ended(self, part: str) -> None:
        """Forget `part`: it is not meant to turn any more."""
        with self._lock:
            self._turned_at.pop(part, None)

    def lacks(self, what: str) -> None:
        """Note that `what` is missing."""
        with self._lock:
            self._missing.add(what)

    def has(self, what: str) -> None:
        """Note that `what` is there."""
        with self._lock:
            self._missing.discard(what)

    def works(self, role: str | None = None) -> None:
        """Note that all is there, unless the process was asked to end."""
        with self._lock:
            self._missing &= {STOPPING}
            self.role = role

    def stop(self) -> None:
        """Note that the process was asked to end: it is never ready again."""
        self.lacks(STOPPING)

    @property
    def is_stopping(self) -> bool:
        """Whether the process was asked to end."""
        return STOPPING in self._missing

    def stuck(self) -> list[str]:
        """Return the parts that do not turn."""
        before = time.monotonic() - STUCK_S
        with self._lock:
            return sorted(part for part, at in self._turned_at.items() if at < before)

    def missing(self) -> list[str]:
        """Return what keeps the process from taking work."""
        with self._lock:
            missing = set(self._missing)
        if self._looks is not None:
            missing.update(self._looks())
        return sorted(missing)

    @asynccontextmanager
    async def unless_lost(self, what: str) -> AsyncIterator[None]:
        """Note that `what` is missing once the body has ended, however it does."""
        try:
            yield
        finally:
            self.role = None
            self.lacks(what)

    async def turn(self, part: str) -> None:
        """Note that the running event loop turns, until canceled."""
        try:
            while True:
                self.turned(part)
                await asyncio.sleep(TURN_S)
        finally:
            self.ended(part)
