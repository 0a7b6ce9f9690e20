"""Finished runs are kept for a while, then removed with all that belongs to them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta

import psycopg

from triggerkit.runs.run import first_run_id_at

#: Seconds between two looks, and most runs removed at one.
LOOK_S = 60.0
CHUNK = 5_000

#: Ids sort by time, so the oldest runs are found at the beginning of the index.
_REMOVE = """
WITH old AS (
    SELECT id FROM triggerkit.runs
    WHERE id < %(before)s AND finished_at < clock_timestamp() - %(keep)s
        AND (idempotency_key IS NULL OR idempotency_expires_at IS NULL
            OR idempotency_expires_at < clock_timestamp())
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED),
attempts AS (DELETE FROM triggerkit.attempts WHERE run_id IN (SELECT id FROM old)),
spans AS (DELETE FROM triggerkit.spans WHERE run_id IN (SELECT id FROM old))
DELETE FROM triggerkit.runs WHERE id IN (SELECT id FROM old)
"""

_FORGET_STARTS = """
DELETE FROM triggerkit.starts s USING triggerkit.queues q
WHERE q.name = s.queue AND s.at < clock_timestamp() - q.rate_period_s * interval '1 second'
"""


@dataclass(slots=True)
class Retention:
    """Removes runs that finished longer than `keep` ago, a chunk at a time."""

    keep: timedelta
    look_s: float = LOOK_S
    _next_look: float = field(default=0.0, init=False)

    def apply(self, connection: psycopg.Connection) -> int:
        """Remove a chunk, if it is time to look; returns how many runs were removed."""
        now = time.monotonic()
        if now < self._next_look:
            return 0
        before = first_run_id_at(time.time() - self.keep.total_seconds())
        parameters = {"before": before, "keep": self.keep, "limit": CHUNK}
        removed = connection.execute(_REMOVE, parameters).rowcount
        connection.execute(_FORGET_STARTS)
        self._next_look = now + (self.look_s if removed < CHUNK else 0.0)
        return removed
