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


def backoff_s(attempt: int, asked_s: float | None = None, *, is_repeated: bool = False) -> float:
    """Return the seconds before a push is sent again, after `attempt`.

    `asked_s` is what the endpoint asks for. It is not let have the push earlier than the first
    wait, nor earlier than ours when `is_repeated`: the attempt failed as the one before did.
    """
    own_s = max(FIRST_WAIT_S, doubled(attempt, FIRST_WAIT_S, LONGEST_WAIT_S))
    if asked_s is None:
        return own_s
    least_s = own_s if is_repeated else FIRST_WAIT_S
    return max(least_s, min(asked_s, LONGEST_WAIT_S))
