"""How many runs a process takes at once."""

from __future__ import annotations

import threading


class Slots:
    """Counts free slots; any thread may use it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count
        self._changed = threading.Condition()
        self._closed = False

    def wait(self, timeout_s: float) -> int:
        """Wait until a slot is free; how many are, 0 after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0 or self._closed, timeout_s)
            return max(0, self._free)

    def close(self) -> None:
        """Nobody is to `wait` any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, count: int = 1) -> None:
        """Take slots, also where none is free: who comes back from waiting goes on at once."""
        with self._changed:
            self._free -= count

    def release(self, count: int = 1) -> None:
        """Give slots back."""
        with self._changed:
            self._free += count
            self._changed.notify_all()

    def wait_until_all_free(self) -> None:
        """Wait until nothing executes."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= self._count)
