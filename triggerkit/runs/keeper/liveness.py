"""Telling which workers are dead, without a wall clock."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import NamedTuple

#: Longest time between two looks that counts: an observer that stood still saw nothing.
LONGEST_GAP_S = 2.0


class _Seen(NamedTuple):
    heartbeat: int
    silent_s: float


class FailureDetector:
    """A worker is dead when one observer saw its heartbeat unchanged for the whole lease."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._looked_at: float | None = None
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()

    def begin_anew(self) -> None:
        """Forget how long each has been silent."""
        with self._lock:
            self._looked_at, self._seen = None, {}

    def dead(self, heartbeats: Mapping[str, int], now: float) -> list[str]:
        """Return the workers that are dead, given each one's heartbeat; `now` is monotonic
        seconds. Several threads may look."""
        with self._lock:
            return self._dead(heartbeats, now)

    def _dead(self, heartbeats: Mapping[str, int], now: float) -> list[str]:
        passed_s = 0.0 if self._looked_at is None else min(now - self._looked_at, LONGEST_GAP_S)
        self._looked_at = now
        self._seen = {
            worker: self._look(worker, heartbeat, passed_s)
            for worker, heartbeat in heartbeats.items()
        }
        return [worker for worker, seen in self._seen.items() if seen.silent_s > self._lease_s]

    def _look(self, worker: str, heartbeat: int, passed_s: float) -> _Seen:
        before = self._seen.get(worker)
        if before is None or before.heartbeat != heartbeat:
            return _Seen(heartbeat, 0.0)
        return _Seen(heartbeat, before.silent_s + passed_s)
