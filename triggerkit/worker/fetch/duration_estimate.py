"""Estimate how long the runs of each task take: several short ones are worth one claim."""

from __future__ import annotations

#: Seconds of work that one slot may be given at once.
MOMENT_S = 0.01

#: Most runs that one slot is given.
MOST = 100

#: The weight of the newest run in the mean.
_WEIGHT = 0.1


class DurationEstimate:
    """The mean time of a run, by task."""

    def __init__(self) -> None:
        self._mean_s: dict[str, float] = {}

    def took(self, task: str, seconds: float) -> None:
        """Note that a run of `task` took so long."""
        mean = self._mean_s.get(task)
        if mean is None or seconds > MOMENT_S:
            # One that is slow counts at once: those behind it would have to wait for it.
            self._mean_s[task] = seconds
        else:
            self._mean_s[task] = mean + (seconds - mean) * _WEIGHT

    def runs_per_slot(self, task: str) -> int:
        """Return how many runs of `task` a slot gets done in a moment; one while that is not
        known."""
        mean = self._mean_s.get(task)
        return 1 if mean is None else max(1, min(MOST, int(MOMENT_S / max(mean, 1e-6))))
