"""Bound how many runs a process takes at once."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Slots:
    """Counts free slots; any thread may use it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count
        self._changed = threading.Condition()
        self._closed = False
        self._lent = 0
        self._most_lent = 0
        #: Called when more slots are lent than ever before: each needs a thread of its own.
        self.more: Callable[[], object] = lambda: None

    def wait(self, timeout_s: float) -> int:
        """Wait until a slot is free; how many are, 0 after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0 or self._closed, timeout_s)
            return max(0, self._free)

    @property
    def are_free(self) -> bool:
        """Whether nothing executes, nor waits for a run of its own."""
        return self._free >= self._count and not self._lent

    @property
    def is_lent(self) -> bool:
        """Whether a run waits for another one."""
        return self._lent > 0

    def close(self) -> None:
        """Nobody is to `wait` any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, count: int = 1) -> None:
        """Take slots, also where none is free."""
        with self._changed:
            self._free -= count

    def release(self, count: int = 1) -> None:
        """Give slots back."""
        with self._changed:
            self._free += count
            self._changed.notify_all()

    def lend(self) -> None:
        """Give the slot of a run that waits for another one to others meanwhile."""
        with self._changed:
            self._lent += 1
            is_most = self._lent > self._most_lent
            self._most_lent = max(self._lent, self._most_lent)
        if is_most:
            self.more()
        self.release()

    def take_back(self) -> None:
        """Take a slot for a run that goes on, also when none is free."""
        with self._changed:
            self._lent -= 1
            self._free -= 1
            self._changed.notify_all()

    def wait_until_all_free(self) -> None:
        """Wait until nothing executes, nor waits for a run of its own."""
        with self._changed:
            self._changed.wait_for(lambda: self.are_free)
