"""Claiming runs and completing them: compare-and-set in Postgres, in bulk."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import psycopg
from psycopg.rows import class_row

from triggerkit.runs.accept import INSERT, LOCK_KEYS, insert_parameters, lock_names
from triggerkit.runs.run import ClaimedRun, NewRun, Outcome

#: Gives queued runs to a worker. A run another worker has, or one that is not runnable, is not
#: returned, so that an id that is in Redis twice does nothing the second time.
_CLAIM = """
UPDATE triggerkit.runs r
SET status = 'executing', attempt = attempt + 1, started_at = clock_timestamp(), worker = %s
WHERE id = ANY (%s) AND task = ANY (%s) AND status = 'queued' AND NOT blocked
RETURNING id, seq, task, queue, attempt, max_attempts, payload, items, concurrency_key, item_key,
    source, started_at,
    CASE WHEN items IS NULL THEN '{}' ELSE ARRAY(
        SELECT h.item_key FROM triggerkit.runs h
        WHERE h.task = r.task AND h.item_key IS NOT NULL AND h.finished_at IS NULL) END AS held_rows
"""

#: Writes outcomes, fenced by the attempt's number: a late worker cannot complete a run that was
#: given to another.
_COMPLETE = """
UPDATE triggerkit.runs r
SET status = o.status, output = o.output, error = o.error::jsonb,
    finished_at = CASE WHEN o.retry_in_s IS NULL THEN o.finished_at END,
    scheduled_at = o.finished_at + o.retry_in_s * interval '1 second',
    worker = CASE WHEN o.retry_in_s IS NULL THEN r.worker END
FROM unnest(%s::text[], %s::int[], %s::text[], %s::text[], %s::text[], %s::timestamptz[],
    %s::float[]) AS o (id, attempt, status, output, error, finished_at, retry_in_s)
WHERE r.id = o.id AND r.attempt = o.attempt AND r.status = 'executing'
RETURNING r.id
"""

_ATTEMPTS = """
INSERT INTO triggerkit.attempts (run_id, attempt, status, started_at, finished_at, worker, error)
SELECT * FROM unnest(%s::text[], %s::int[], %s::text[], %s::timestamptz[], %s::timestamptz[],
    %s::text[], %s::text[]::jsonb[])
ON CONFLICT DO NOTHING
"""

#: Lets the first unfinished run of each key go on; it may be waiting for a retry, then none does.
UNBLOCK = """
UPDATE triggerkit.runs SET blocked = false, queued_at = clock_timestamp()
WHERE blocked AND id IN (
    SELECT (SELECT r.id FROM triggerkit.runs r
            WHERE r.task = k.task AND r.concurrency_key = k.key AND r.finished_at IS NULL
            ORDER BY r.seq LIMIT 1)
    FROM unnest(%s::text[], %s::text[]) AS k (task, key))
RETURNING queue, id, status
"""


class RunClaims:
    """The worker's side of the runs: claims and completions over one connection."""

    def __init__(
        self, connection: psycopg.Connection, worker_id: str, tasks: Sequence[str]
    ) -> None:
        """`connection` is in autocommit mode; this object is not for several threads.

        Only runs of `tasks` are claimed: others stay queued for a worker that knows theirs.
        """
        self._connection = connection
        self._worker_id = worker_id
        self._tasks = list(tasks)

    def claim(self, run_ids: Sequence[str]) -> list[ClaimedRun]:
        """Claim what can be claimed of `run_ids`; durable before it returns, in arrival order."""
        with self._connection.cursor(row_factory=class_row(ClaimedRun)) as cursor:
            cursor.execute(_CLAIM, [self._worker_id, list(run_ids), self._tasks])
            return sorted(cursor.fetchall(), key=lambda run: run.seq)

    def complete(self, outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
        """Write `outcomes` with their attempts and successors in one transaction.

        Returns (queue, run id) of runs that became runnable: push them.
        """
        keys = [(o.run.task, o.run.concurrency_key) for o in outcomes]
        spawned = [run for o in outcomes for run in o.spawned]
        locks = lock_names([*keys, *((r.task, r.concurrency_key) for r in spawned)])
        with self._connection.transaction(), self._connection.pipeline():
            if locks:
                self._connection.execute(LOCK_KEYS, [locks])
            completed = self._connection.execute(_COMPLETE, _columns(outcomes))
            done = {run_id for (run_id,) in completed.fetchall()}
            written = [o for o in outcomes if o.run.id in done]
            self._connection.execute(_ATTEMPTS, self._attempts(written))
            runnable = self._spawn([run for o in written for run in o.spawned])
            return runnable + self._unblock(written)

    def _spawn(self, spawned: Sequence[NewRun]) -> list[tuple[str, str]]:
        if not spawned:
            return []
        cursor = self._connection.execute(INSERT, insert_parameters(spawned))
        return [(queue, run_id) for run_id, queue, runnable in cursor.fetchall() if runnable]

    def _unblock(self, outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
        ended = [o for o in outcomes if o.retry_in_s is None]
        keys = {(o.run.task, o.run.concurrency_key) for o in ended if o.run.concurrency_key}
        if not keys:
            return []
        tasks, names = zip(*sorted(keys), strict=True)
        cursor = self._connection.execute(UNBLOCK, [list(tasks), list(names)])
        return [
            (queue, run_id) for queue, run_id, status in cursor.fetchall() if status == "queued"
        ]

    def _attempts(self, outcomes: Sequence[Outcome]) -> list[list[object]]:
        return [
            [o.run.id for o in outcomes],
            [o.run.attempt for o in outcomes],
            [o.status for o in outcomes],
            [o.run.started_at for o in outcomes],
            [o.finished_at for o in outcomes],
            [self._worker_id for _ in outcomes],
            [_error(o) for o in outcomes],
        ]


def _columns(outcomes: Sequence[Outcome]) -> list[list[object]]:
    return [
        [o.run.id for o in outcomes],
        [o.run.attempt for o in outcomes],
        [o.status for o in outcomes],
        [None if o.output is None else o.output.decode() for o in outcomes],
        [_error(o) for o in outcomes],
        [o.finished_at for o in outcomes],
        [o.retry_in_s for o in outcomes],
    ]


def _error(outcome: Outcome) -> str | None:
    return None if outcome.error is None else orjson.dumps(outcome.error.as_json()).decode()
