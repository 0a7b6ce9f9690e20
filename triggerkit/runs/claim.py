"""Claiming runs and completing them: compare-and-set in Postgres, in bulk."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import psycopg
from psycopg.rows import RowMaker

from triggerkit.runs.accept.insert import INSERT_ONCE, Inserted, insert_parameters
from triggerkit.runs.breakers import settle_breakers
from triggerkit.runs.keys import (
    LOCK,
    NOT_WAITING,
    UNBLOCK,
    Key,
    admit_statements,
    admitted,
    lock_parameters,
    unblock_parameters,
)
from triggerkit.runs.run import ClaimedRun, NewRun, Outcome, ReadyRun
from triggerkit.runs.transitions import ORPHANED, cancel_orphans
from triggerkit.state.turn import in_one_turn

logger = logging.getLogger(__name__)

#: The columns of a `ClaimedRun`, in order.
_CLAIMED = """
    id, seq, task, queue, attempt, max_attempts, waits, payload, items, concurrency_key, item_key,
    source, started_at, gate IS NOT NULL AS open, tags, metadata, traceparent,
    CASE WHEN items IS NULL THEN '{}' ELSE ARRAY(
        SELECT h.item_key FROM triggerkit.runs h
        WHERE h.task = r.task AND h.item_key IS NOT NULL AND h.finished_at IS NULL)
    END AS held_rows,
    r.id = ANY (ARRAY(SELECT probe FROM triggerkit.breakers
        WHERE closed_at IS NULL AND probe IS NOT NULL)) AS probes
"""

#: The queues that have limits.
LIMITED = """
ARRAY(SELECT name FROM triggerkit.queues WHERE concurrency IS NOT NULL OR rate_limit IS NOT NULL)
"""

#: Gives ready runs to a worker. A run another worker has, or one that is not ready, is not
#: returned, so that an id that is in Redis twice does nothing the second time. Rows locked by
#: another claim are left to it: two claims of the same ids cannot wait for each other. A worker
#: without a lease gets none: its runs would be taken from it at once. The status is compared such
#: that no index of the queued runs fits: it would be read from end to end. Starts of a queue with a
#: rate are counted.
_CLAIM = f"""
WITH claimed AS (
UPDATE triggerkit.runs r
SET status = 'executing', attempt = attempt + 1, started_at = clock_timestamp(), worker = %s,
    version = %s, claim = %s
WHERE id = ANY (ARRAY(
    SELECT id FROM triggerkit.runs
    WHERE id = ANY (%s) AND task = ANY (%s) AND status || '' = 'queued' AND NOT blocked
        AND gate IS DISTINCT FROM 'held'
        AND queue <> ALL (ARRAY(SELECT name FROM triggerkit.queues WHERE paused_at IS NOT NULL))
        AND {NOT_WAITING.format(run="runs")}
        AND (expires_at IS NULL OR attempt > 0 OR expires_at > clock_timestamp())
        AND (crashes >= %s) IS NOT TRUE
        AND NOT {ORPHANED.format(run="runs")}
        AND (gate IS NOT NULL OR queue <> ALL ({LIMITED}))
        AND EXISTS (SELECT FROM triggerkit.workers WHERE id = %s)
    FOR UPDATE SKIP LOCKED))
RETURNING {_CLAIMED}),
counted AS (
    INSERT INTO triggerkit.starts (queue, at)
    SELECT c.queue, c.started_at FROM claimed c JOIN triggerkit.queues q ON q.name = c.queue
    WHERE q.rate_limit IS NOT NULL)
SELECT * FROM claimed
"""  # noqa: S608 - of constants

#: Runs that a transaction made which did not know yet that their queue has a limit: they wait at
#: its gate from now on, and the keeper lets them through.
_HOLD = f"""
UPDATE triggerkit.runs SET gate = 'held'
WHERE id = ANY (%s) AND status || '' = 'queued' AND NOT blocked AND gate IS NULL
    AND queue = ANY ({LIMITED})
"""  # noqa: S608 - of constants

#: Runs that executed when their workers died, so often, are to execute alone.
SUSPECT = 2

_SUSPECTS = """
SELECT id FROM triggerkit.runs WHERE id = ANY (%s) AND task = ANY (%s) AND crashes >= %s
    AND status || '' = 'queued' AND NOT blocked AND gate IS DISTINCT FROM 'held'
"""

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

#: Writes outcomes, fenced by the attempt's number: a late worker cannot complete a run that was
#: given to another. Of attempts, those that did not succeed are noted beside: one that did is told
#: by its run.
_COMPLETE = """
WITH o AS (
    SELECT * FROM unnest(%s::text[], %s::int[], %s::text[], %s::text[], %s::text[], %s::float[],
        %s::int[]) AS o (id, attempt, status, output, error, retry_in_s, waited)),
done AS (
    UPDATE triggerkit.runs r
    SET status = CASE WHEN o.retry_in_s IS NOT NULL AND r.cancel_requested_at IS NOT NULL
            THEN 'canceled' ELSE o.status END,
        output = o.output, error = o.error::jsonb, gate = NULL, waits = r.waits + o.waited,
        finished_at = CASE WHEN o.retry_in_s IS NULL OR r.cancel_requested_at IS NOT NULL
            THEN clock_timestamp() END,
        scheduled_at = clock_timestamp() + o.retry_in_s * interval '1 second',
        worker = CASE WHEN o.retry_in_s IS NULL THEN r.worker END
    FROM o
    WHERE r.id = o.id AND r.attempt = o.attempt
        AND r.status || '' = 'executing'
    RETURNING r.id, r.attempt, r.status, r.started_at, r.error),
noted AS (
    INSERT INTO triggerkit.attempts
        (run_id, attempt, status, started_at, finished_at, worker, error)
    SELECT id, attempt, CASE WHEN status = 'retrying' THEN 'failed' ELSE status END, started_at,
        clock_timestamp(), %s, error
    FROM done WHERE status <> 'completed'
    ON CONFLICT DO NOTHING)
SELECT id FROM done
"""

#: Puts runs back that this worker claimed and did not begin: as if it had never claimed them. One
#: that was canceled meanwhile has ended.
_GIVE_BACK = """
UPDATE triggerkit.runs r
SET status = CASE WHEN r.cancel_requested_at IS NULL THEN 'queued' ELSE 'canceled' END,
    finished_at = CASE WHEN r.cancel_requested_at IS NOT NULL THEN clock_timestamp() END,
    gate = CASE WHEN r.cancel_requested_at IS NULL THEN r.gate END,
    attempt = r.attempt - 1, worker = NULL, claim = NULL
FROM unnest(%s::text[], %s::int[]) AS g (id, attempt)
WHERE r.id = g.id AND r.attempt = g.attempt AND r.status || '' = 'executing'
    AND r.worker = %s
RETURNING r.task, r.id, r.rank, r.status = 'queued'
"""


def _claimed_run(_: object) -> RowMaker[ClaimedRun]:
    return ClaimedRun._make


class RunClaims:
    """The worker's side of the runs: claims and completions over one connection."""

    def __init__(
        self,
        connection: psycopg.Connection,
        worker_id: str,
        tasks: Sequence[str],
        version: str | None = None,
    ) -> None:
        """`connection` is in autocommit mode; this object is not for several threads.

        Only runs of `tasks` are claimed: others stay queued for a worker that knows theirs.
        `version` is the code's, and is noted with each run.
        """
        self._connection = connection
        self._worker_id = worker_id
        self._tasks = list(tasks)
        self._version = version

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def claim(
        self,
        run_ids: Sequence[str],
        name: str | None = None,
        *,
        tasks: Sequence[str] | None = None,
        with_suspects: bool = True,
    ) -> list[ClaimedRun]:
        """Claim what can be claimed of `run_ids`; durable before it returns, in the given order.

        `name` is the claim's own: when this raises, `claimed_as` tells by it what was claimed.
        They are of `tasks`, where that is known. Without `with_suspects`, runs that are to execute
        alone are left: see `suspects_among`.
        """
        ids = list(run_ids)
        worker_id, of = self._worker_id, self._tasks if tasks is None else list(tasks)
        crashes = SUSPECT if not with_suspects else None
        claimed = self._claimed(
            _CLAIM, [worker_id, self._version, name, ids, of, crashes, worker_id]
        )
        if len(claimed) < len(ids):
            self._warn_of_unknown(ids)
            self._connection.execute(_HOLD, [ids])
            cancel_orphans(self._connection, ids)
        place = {run_id: number for number, run_id in enumerate(ids)}
        return sorted(claimed, key=lambda run: place[run.id])

    def suspects_among(self, run_ids: Sequence[str]) -> list[str]:
        """Return those of `run_ids` that wait to be executed alone."""
        parameters = [list(run_ids), self._tasks, SUSPECT]
        return [run_id for (run_id,) in self._connection.execute(_SUSPECTS, parameters).fetchall()]

    def claimed_as(self, name: str) -> list[ClaimedRun]:
        """Return what the claim `name` claimed, if it was done and none of it is completed
        since."""
        return self._claimed(_GIVEN, [self._worker_id, name])

    def _claimed(self, query: str, parameters: Sequence[object]) -> list[ClaimedRun]:
        with self._connection.cursor(row_factory=_claimed_run) as cursor:
            cursor.execute(query, parameters)
            return cursor.fetchall()

    def give_back(self, runs: Sequence[ClaimedRun]) -> list[ReadyRun]:
        """Undo the claim of `runs`, whose attempts did not begin; they are to be pushed."""
        keys = [(run.task, run.concurrency_key) for run in runs]
        parameters = [[run.id for run in runs], [run.attempt for run in runs], self._worker_id]
        _, rows, unblocked = in_one_turn(
            self._connection,
            [
                (LOCK, lock_parameters(keys)),
                (_GIVE_BACK, parameters),
                (UNBLOCK, unblock_parameters(keys)),
            ],
        )
        back = Inserted()
        back.add([], unblocked)
        ready = [ReadyRun(task, id_, rank) for task, id_, rank, is_queued in rows if is_queued]
        ended = len(rows) - len(ready)
        gates = back.gates | ({run.queue for run in runs if run.open} if ended else set())
        return ready + back.ready + (self._admit(gates) if gates else [])

    def complete(self, outcomes: Sequence[Outcome]) -> list[ReadyRun]:
        """Write `outcomes` with their attempts and successors in one transaction.

        Returns the runs that became ready: push them.
        """
        spawned = any(o.spawned for o in outcomes)
        done, inserted = (self._complete_spawning if spawned else self._complete)(outcomes)
        _warn_of_late(outcomes, done)
        if any(o.away or o.run.probes for o in outcomes):
            inserted.ready += settle_breakers(self._connection, outcomes)
        gates = inserted.gates | {o.run.queue for o in outcomes if o.run.open}
        if gates:
            inserted.ready += self._admit(gates)
        return inserted.ready

    def _complete(self, outcomes: Sequence[Outcome]) -> tuple[set[str], Inserted]:
        inserted = Inserted()
        if not any(o.run.concurrency_key for o in outcomes):
            rows = self._connection.execute(_COMPLETE, self._columns(outcomes)).fetchall()
        else:
            _, rows, unblocked = in_one_turn(
                self._connection,
                [
                    (LOCK, lock_parameters(_keys(outcomes))),
                    (_COMPLETE, self._columns(outcomes)),
                    (UNBLOCK, unblock_parameters(_keys(outcomes))),
                ],
            )
            inserted.add([], unblocked)
        return {run_id for (run_id,) in rows}, inserted

    def _complete_spawning(self, outcomes: Sequence[Outcome]) -> tuple[set[str], Inserted]:
        """Write outcomes whose new runs depend on which of them count: that takes turns."""
        execute = self._connection.execute
        inserted = Inserted()
        spawned = [(run.task, run.concurrency_key) for o in outcomes for run in o.spawned]
        with self._connection.transaction():
            execute(LOCK, lock_parameters([*_keys(outcomes), *spawned]))
            completed = execute(_COMPLETE, self._columns(outcomes)).fetchall()
            done = {run_id for (run_id,) in completed}
            written = [o for o in outcomes if o.run.id in done]
            made = self._spawn([run for o in written for run in o.spawned])
            unblocked = execute(UNBLOCK, unblock_parameters(_keys(written))).fetchall()
            inserted.add(made, unblocked)
        return done, inserted

    def _spawn(self, spawned: Sequence[NewRun]) -> list[tuple[Any, ...]]:
        if not spawned:
            return []
        return self._connection.execute(INSERT_ONCE, insert_parameters(spawned)).fetchall()

    def _admit(self, queues: Iterable[str]) -> list[ReadyRun]:
        _, rows = in_one_turn(self._connection, admit_statements(queues))
        return admitted(rows)

    def _columns(self, outcomes: Sequence[Outcome]) -> list[object]:
        return [
            [o.run.id for o in outcomes],
            [o.run.attempt for o in outcomes],
            [o.status for o in outcomes],
            [None if o.output is None else o.output.decode() for o in outcomes],
            [_error(o) for o in outcomes],
            [o.retry_in_s for o in outcomes],
            [int(o.waited) for o in outcomes],
            self._worker_id,
        ]

    def _warn_of_unknown(self, ids: list[str]) -> None:
        unknown = [run_id for (run_id,) in self._connection.execute(_UNKNOWN, [ids]).fetchall()]
        if unknown:
            logger.warning(
                "dropped %d ids in Redis that belong to no run: %s …", len(unknown), unknown[0]
            )


def _warn_of_late(outcomes: Sequence[Outcome], done: set[str]) -> None:
    for outcome in outcomes:
        if outcome.run.id not in done:
            run = outcome.run
            logger.warning("attempt %d of %s ended too late; ignored", run.attempt, run.id)


def _keys(outcomes: Iterable[Outcome]) -> list[Key]:
    return [(o.run.task, o.run.concurrency_key) for o in outcomes]


def _error(outcome: Outcome) -> str | None:
    return None if outcome.error is None else orjson.dumps(outcome.error.as_json()).decode()
