"""Tell whether this worker's keeper leads, and wake it: shared by the keeper's threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence


class Leadership:
    """Any thread may use it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._leads = False
        self._has_ended = False
        self._is_woken = False
        self._named: list[str] = []

    @property
    def has_ended(self) -> bool:
        """Return whether the keeper stops."""
        return self._has_ended

    @property
    def leads(self) -> bool:
        """Return whether this keeper looks after the runs."""
        return self._leads and not self._has_ended

    def set(self, leads: bool) -> None:
        """Note whether this keeper leads."""
        with self._changed:
            self._leads = leads
            self._changed.notify_all()

    def wake(self, run_ids: Sequence[str] = ()) -> None:
        """Have the keeper look at once, if it leads, and push `run_ids`."""
        with self._changed:
            if self._leads:
                self._is_woken = True
                self._named += run_ids
                self._changed.notify_all()

    def end(self) -> None:
        """Have all who wait here end."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def wait_to_lead(self) -> bool:
        """Wait until this keeper leads; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._leads or self._has_ended)
            return not self._has_ended

    def wait(self, seconds: float) -> list[str]:
        """Wait so long, or until woken or followed by another; the ids that are to be pushed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_woken or not self.leads, seconds)
            named, self._named, self._is_woken = self._named, [], False
            return named

    def rest(self, seconds: float) -> None:
        """Wait so long, or until the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended, seconds)
