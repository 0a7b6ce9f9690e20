"""Print lines from a thread: whoever does not take them holds up no delivery."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

#: Lines that wait for a terminal that takes none; what comes then is left out.
MOST_LINES = 1000

#: Seconds that the last lines have.
LAST_S = 1.0


class Printer:
    """Prints lines by `write`, in order. `left_out` tells how many were not printed; `broken` is
    called, from the thread, once they cannot be printed any more, by `error`."""

    def __init__(
        self,
        write: Callable[[str], None],
        left_out: Callable[[int], str],
        broken: Callable[[], None],
    ) -> None:
        self._write = write
        self._tell_left_out = left_out
        self._broken = broken
        self._lines: deque[str] = deque()
        self._changed = threading.Condition()
        self._left_out = 0
        self._is_closed = False
        self.error: OSError | None = None
        # It may be waiting for the terminal when the command ends.
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self._thread.start()

    def __call__(self, line: str) -> None:
        """Print a line, soon."""
        with self._changed:
            if len(self._lines) >= MOST_LINES:
                self._left_out += 1
                return
            self._lines.append(line)
            self._changed.notify()

    def close(self) -> None:
        """Print what is left, if that is taken soon."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(LAST_S)

    def _run(self) -> None:
        while (line := self._next()) is not None:
            try:
                self._write(line)
            except OSError as error:
                self.error = error
                self._broken()
                return

    def _next(self) -> str | None:
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._left_out or self._is_closed)
            if self._lines:
                return self._lines.popleft()
            if self._left_out:
                left_out, self._left_out = self._left_out, 0
                return self._tell_left_out(left_out)
            return None
