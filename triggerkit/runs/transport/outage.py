"""A server that answers nothing: one asks whether it is back, and the others go on meanwhile."""

from __future__ import annotations

import threading
import time

#: An answer that takes as long, in seconds, comes from a server on which nobody else should wait.
LONG_S = 1.0

#: Seconds between two looks at whether it is back, and that one of them may take.
AGAIN_S = 1.0
LOOK_S = 10.0


class Outage:
    """What is known of a server; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: When somebody may ask it again, by the monotonic clock; None while it answers.
        self._ask_at: float | None = None

    def may_ask(self) -> bool:
        """Return whether to ask it now."""
        if self._ask_at is None:
            return True
        now = time.monotonic()
        with self._lock:
            if self._ask_at is None or now < self._ask_at:
                return self._ask_at is None
            self._ask_at = now + LOOK_S
            return True

    def answered(self) -> None:
        """Note that it does."""
        self._ask_at = None

    def failed(self, began: float) -> None:
        """Note that who asked at `began` got no answer; one that is refused at once keeps nobody
        waiting."""
        now = time.monotonic()
        with self._lock:
            self._ask_at = now + AGAIN_S if now - began >= LONG_S else None
