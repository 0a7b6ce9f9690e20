"""Finished runs are kept for a while, then removed with all that belongs to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import psycopg

from triggerkit.runs.run import first_run_id_at

#: Seconds between two looks, most runs removed by one statement, and most lines of theirs.
LOOK_S = 60.0
CHUNK = 500
LINES = 5_000

_IS_OLD = """
id < %(before)s AND finished_at < clock_timestamp() - %(keep)s
    AND (idempotency_key IS NULL OR idempotency_expires_at IS NULL
        OR idempotency_expires_at < clock_timestamp())
"""

#: Ids sort by time, so the oldest runs are found at the beginning of the index. What was removed a
#: moment ago stands there still, as does what is kept for its key of idempotency: that is passed
#: once a look.
_OLD = f"""
SELECT id FROM triggerkit.runs WHERE id > %(after)s AND {_IS_OLD} ORDER BY id LIMIT %(limit)s
"""  # noqa: S608 - of constants

_REMOVE_LINES = """
DELETE FROM triggerkit.spans WHERE id = ANY (ARRAY(
    SELECT id FROM triggerkit.spans WHERE run_id = ANY (%s) LIMIT %s))
"""

_REMOVE_ATTEMPTS = "DELETE FROM triggerkit.attempts WHERE run_id = ANY (%s)"

_REMOVE = f"DELETE FROM triggerkit.runs WHERE id = ANY (%(ids)s) AND {_IS_OLD}"  # noqa: S608

_FORGET_STARTS = """
DELETE FROM triggerkit.starts s USING triggerkit.queues q
WHERE q.name = s.queue AND s.at < clock_timestamp() - q.rate_period_s * interval '1 second'
"""


@dataclass(frozen=True, slots=True)
class Retention:
    """Removes runs that finished longer than `keep` ago, in many short transactions."""

    keep: timedelta
    look_s: float = LOOK_S

    def apply(
        self, connection: psycopg.Connection, is_over: Callable[[], bool] = lambda: False
    ) -> int:
        """Remove what is old, until `is_over`; returns how many runs were removed."""
        removed, after = 0, ""
        connection.execute(_FORGET_STARTS)
        while not is_over():
            before = first_run_id_at(time.time() - self.keep.total_seconds())
            parameters = {"before": before, "keep": self.keep, "limit": CHUNK, "after": after}
            ids = [run_id for (run_id,) in connection.execute(_OLD, parameters).fetchall()]
            if not ids or not _remove_lines(connection, ids, is_over):
                break
            connection.execute(_REMOVE_ATTEMPTS, [ids])
            removed += connection.execute(_REMOVE, {**parameters, "ids": ids}).rowcount
            after = ids[-1]
        return removed


def _remove_lines(
    connection: psycopg.Connection, run_ids: list[str], is_over: Callable[[], bool]
) -> bool:
    """Remove all that runs said; False when it was over before."""
    while not is_over():
        if connection.execute(_REMOVE_LINES, [run_ids, LINES]).rowcount < LINES:
            return True
    return False
