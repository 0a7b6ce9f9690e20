"""Compute the wait before the next try: doubling, jittered, bounded."""

from __future__ import annotations

import random

#: Back-off of a failing endpoint: the first wait and the longest, in seconds.
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 600.0


def doubled(attempt: int, first_s: float, longest_s: float) -> float:
    """Return the seconds to wait after try `attempt` (from 1): doubling from `first_s`, jittered by
    15 %."""
    wait = min(first_s * 2.0 ** min(attempt - 1, 20), longest_s)
    return wait * random.uniform(0.85, 1.15)  # noqa: S311 - jitter, not a secret


def backoff_s(attempt: int, asked_s: float | None = None) -> float:
    """Return the seconds before a push is sent again, after `attempt`; `asked_s` is what the
    endpoint asks."""
    if asked_s is not None:
        return min(asked_s, LONGEST_WAIT_S)
    return doubled(attempt, FIRST_WAIT_S, LONGEST_WAIT_S)
