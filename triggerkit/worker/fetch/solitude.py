"""A run that was there at two deaths of its process executes alone: a third has one cause."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
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
        self._run_id: str | None = None
        self._fetcher: object = None
        self._since = 0.0
        self._executes = False

    @contextmanager
    def claiming(self) -> Iterator[bool]:
        """Claim within this; whether anything may be claimed but the run that is to be alone."""
        with self._claiming:
            yield self.is_open

    @property
    def is_open(self) -> bool:
        """Whether runs may be claimed. A run that executes alone and waits for another needs it."""
        return self._run_id is None or (self._executes and any(s.is_lent for s in self._slots))

    def want(self, run_id: str, fetcher: object) -> None:
        """Have the process take nothing more until `fetcher` can claim this run alone."""
        if self._run_id is None:
            self._run_id, self._fetcher = run_id, fetcher
            self._since, self._executes = time.monotonic(), False

    def turn_of(self, fetcher: object) -> str | None:
        """Return the run that `fetcher` is to claim now, if it is time."""
        if self._run_id is None or self._executes or self._fetcher is not fetcher:
            return None
        is_late = time.monotonic() - self._since > PATIENCE_S
        return self._run_id if is_late or all(s.are_free for s in self._slots) else None

    def begin(self) -> None:
        """The run was claimed."""
        self._executes = True

    def end(self, run_id: str | None = None) -> None:
        """`run_id` has ended, or, without one, could not be claimed."""
        if run_id is None or run_id == self._run_id:
            self._run_id = self._fetcher = None
            self._executes = False
