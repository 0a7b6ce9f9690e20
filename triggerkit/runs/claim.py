"""Claiming runs and completing them: compare-and-set in Postgres, in bulk."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import orjson
import psycopg
from psycopg.rows import class_row

from triggerkit.runs.accept import INSERT, insert_parameters
from triggerkit.runs.keys import (
    LOCK,
    UNBLOCK,
    Key,
    lock_parameters,
    runnable,
    unblock_parameters,
)
from triggerkit.runs.run import ClaimedRun, NewRun, Outcome
from triggerkit.state.turn import in_one_turn

logger = logging.getLogger(__name__)

#: The columns of a `ClaimedRun`.
_CLAIMED = """
    id, seq, task, queue, attempt, max_attempts, payload, items, concurrency_key, item_key,
    source, started_at,
    CASE WHEN items IS NULL THEN '{}' ELSE ARRAY(
        SELECT h.item_key FROM triggerkit.runs h
        WHERE h.task = r.task AND h.item_key IS NOT NULL AND h.finished_at IS NULL) END AS held_rows
"""

#: Gives queued runs to a worker. A run another worker has, or one that is not runnable, is not
#: returned, so that an id that is in Redis twice does nothing the second time. Rows locked by
#: another claim are left to it: two claims of the same ids cannot wait for each other. The status
#: is compared such that no index of the queued runs fits: it would be read from end to end.
_CLAIM = f"""
UPDATE triggerkit.runs r
SET status = 'executing', attempt = attempt + 1, started_at = clock_timestamp(), worker = %s,
    claim = %s
WHERE id = ANY (ARRAY(
    SELECT id FROM triggerkit.runs
    WHERE id = ANY (%s) AND task = ANY (%s) AND status || '' = 'queued' AND NOT blocked
    FOR UPDATE SKIP LOCKED))
RETURNING {_CLAIMED}
"""  # noqa: S608 - of constants

#: What a claim gave whose answer was lost.
_GIVEN = f"""
SELECT {_CLAIMED} FROM triggerkit.runs r
WHERE worker = %s AND status = 'executing' AND claim = %s
"""  # noqa: S608 - of constants

#: Ids that are in Redis and were never given to a run.
_UNKNOWN = """
SELECT given.id FROM unnest(%s::text[]) AS given (id)
WHERE NOT EXISTS (SELECT FROM triggerkit.runs r WHERE r.id = given.id)
"""

#: Writes outcomes and their attempts, fenced by the attempt's number: a late worker cannot complete
#: a run that was given to another.
_COMPLETE = """
WITH o AS (
    SELECT * FROM unnest(%s::text[], %s::int[], %s::text[], %s::text[], %s::text[], %s::float[])
        AS o (id, attempt, status, output, error, retry_in_s)),
done AS (
    UPDATE triggerkit.runs r
    SET status = o.status, output = o.output, error = o.error::jsonb,
        finished_at = CASE WHEN o.retry_in_s IS NULL THEN clock_timestamp() END,
        scheduled_at = clock_timestamp() + o.retry_in_s * interval '1 second',
        worker = CASE WHEN o.retry_in_s IS NULL THEN r.worker END
    FROM o
    WHERE r.id = ANY (%s) AND r.id = o.id AND r.attempt = o.attempt
        AND r.status || '' = 'executing'
    RETURNING r.id, r.attempt, r.status, r.started_at, r.error),
noted AS (
    INSERT INTO triggerkit.attempts
        (run_id, attempt, status, started_at, finished_at, worker, error)
    SELECT id, attempt, status, started_at, clock_timestamp(), %s, error FROM done
    ON CONFLICT DO NOTHING)
SELECT id FROM done
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

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def claim(self, run_ids: Sequence[str], name: str | None = None) -> list[ClaimedRun]:
        """Claim what can be claimed of `run_ids`; durable before it returns, in arrival order.

        `name` is the claim's own: when this raises, `given` tells by it what was claimed.
        """
        ids = list(run_ids)
        claimed = self._claimed(_CLAIM, [self._worker_id, name, ids, self._tasks])
        if len(claimed) < len(ids):
            self._warn_of_unknown(ids)
        return claimed

    def given(self, name: str) -> list[ClaimedRun]:
        """What the claim `name` claimed, if it was done and none of it is completed since."""
        return self._claimed(_GIVEN, [self._worker_id, name])

    def _claimed(self, query: str, parameters: Sequence[object]) -> list[ClaimedRun]:
        with self._connection.cursor(row_factory=class_row(ClaimedRun)) as cursor:
            cursor.execute(query, parameters)
            return sorted(cursor.fetchall(), key=lambda run: run.seq)

    def complete(self, outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
        """Write `outcomes` with their attempts and successors in one transaction.

        Returns (queue, run id) of runs that became runnable: push them.
        """
        spawned = any(o.spawned for o in outcomes)
        done, ready = (self._complete_spawning if spawned else self._complete)(outcomes)
        _warn_of_late(outcomes, done)
        return ready

    def _complete(self, outcomes: Sequence[Outcome]) -> tuple[set[str], list[tuple[str, str]]]:
        _, completed, unblocked = in_one_turn(
            self._connection,
            [
                (LOCK, lock_parameters(_keys(outcomes))),
                (_COMPLETE, self._columns(outcomes)),
                (UNBLOCK, unblock_parameters(_keys(_ended(outcomes)))),
            ],
        )
        return {run_id for (run_id,) in completed}, runnable(unblocked)

    def _complete_spawning(
        self, outcomes: Sequence[Outcome]
    ) -> tuple[set[str], list[tuple[str, str]]]:
        """`_complete` where there are items that become runs: only those of runs that are done."""
        execute = self._connection.execute
        spawned = [(run.task, run.concurrency_key) for o in outcomes for run in o.spawned]
        with self._connection.transaction():
            execute(LOCK, lock_parameters([*_keys(outcomes), *spawned]))
            completed = execute(_COMPLETE, self._columns(outcomes)).fetchall()
            done = {run_id for (run_id,) in completed}
            written = [o for o in outcomes if o.run.id in done]
            ready = self._spawn([run for o in written for run in o.spawned])
            unblocked = execute(UNBLOCK, unblock_parameters(_keys(_ended(written)))).fetchall()
        return done, ready + runnable(unblocked)

    def _spawn(self, spawned: Sequence[NewRun]) -> list[tuple[str, str]]:
        if not spawned:
            return []
        cursor = self._connection.execute(INSERT, insert_parameters(spawned))
        return [(queue, run_id) for run_id, queue, can_run in cursor.fetchall() if can_run]

    def _columns(self, outcomes: Sequence[Outcome]) -> list[object]:
        return [
            [o.run.id for o in outcomes],
            [o.run.attempt for o in outcomes],
            [o.status for o in outcomes],
            [None if o.output is None else o.output.decode() for o in outcomes],
            [_error(o) for o in outcomes],
            [o.retry_in_s for o in outcomes],
            [o.run.id for o in outcomes],
            self._worker_id,
        ]

    def _warn_of_unknown(self, ids: list[str]) -> None:
        unknown = [run_id for (run_id,) in self._connection.execute(_UNKNOWN, [ids]).fetchall()]
        if unknown:
            logger.warning("%d ids in Redis are no runs: dropped %s …", len(unknown), unknown[0])


def _warn_of_late(outcomes: Sequence[Outcome], done: set[str]) -> None:
    for outcome in outcomes:
        if outcome.run.id not in done:
            run = outcome.run
            logger.warning("attempt %d of %s ended too late: not counted", run.attempt, run.id)


def _keys(outcomes: Iterable[Outcome]) -> list[Key]:
    return [(o.run.task, o.run.concurrency_key) for o in outcomes]


def _ended(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return [o for o in outcomes if o.retry_in_s is None]


def _error(outcome: Outcome) -> str | None:
    return None if outcome.error is None else orjson.dumps(outcome.error.as_json()).decode()
