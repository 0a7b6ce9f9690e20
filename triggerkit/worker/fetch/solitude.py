"""A run that was there at two deaths of its process executes alone: a third has one cause."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from triggerkit.worker.fetch.slots import Slots

#: Seconds that what executes in the process may take to end; then the run executes beside it.
PATIENCE_S = 15.0


class Solitude:
    """Of one process, whose fetchers ask it before they claim; any thread may use it."""

    def __init__(self, *slots: Slots) -> None:
        self._slots = slots
        #: Held while runs are claimed.
        self._claiming = threading.Lock()
        #: The runs that are to be alone, one after the other, and who fetched them.
        self._waiting: deque[tuple[str, object]] = deque()
        self._since = 0.0
        #: The one that executes.
        self._executing: str | None = None

    @contextmanager
    def claiming(self) -> Iterator[bool]:
        """Claim within this; whether anything may be claimed but the run that is to be alone."""
        with self._claiming:
            yield self.is_open

    @property
    def is_open(self) -> bool:
        """Whether runs may be claimed. A run that executes alone and waits for another needs it."""
        if self._executing is not None:
            return any(s.is_lent for s in self._slots)
        return not self._waiting

    def want(self, run_ids: Sequence[str], fetcher: object) -> None:
        """Have the process take nothing more until `fetcher` has claimed these runs, each alone."""
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting += [(run_id, fetcher) for run_id in run_ids]

    def turn_of(self, fetcher: object) -> str | None:
        """Return the run that `fetcher` is to claim now, if it is time."""
        if self._executing is not None or not self._waiting or self._waiting[0][1] is not fetcher:
            return None
        is_late = time.monotonic() - self._since > PATIENCE_S
        is_idle = all(s.are_free for s in self._slots)
        return self._waiting[0][0] if is_late or is_idle else None

    def begin(self) -> None:
        """The run whose turn it is was claimed, or cannot be."""
        self._executing, _ = self._waiting.popleft()
        self._since = time.monotonic()

    def end(self, run_id: str) -> None:
        """`run_id` has ended."""
        if run_id == self._executing:
            self._executing = None
