"""Runs that go on: those that are due, those of dead workers, and those that Redis lost.

Each function changes runs in Postgres and returns (queue, run id) of what is to be pushed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import psycopg

from triggerkit.runs.keys import LOCK, UNBLOCK, lock_parameters, runnable, unblock_parameters

logger = logging.getLogger(__name__)

#: Attempts in which its worker died after which a run is given up.
MAX_CRASHES = 3

#: A queued run younger than this many seconds may still be on its way to Redis.
SETTLING_S = 1.0

#: Most runs changed by one statement.
CHUNK = 10_000

_PROMOTE = """
UPDATE triggerkit.runs SET status = 'queued', queued_at = clock_timestamp()
WHERE id = ANY (ARRAY(
    SELECT id FROM triggerkit.runs
    WHERE status IN ('delayed', 'retrying') AND scheduled_at <= clock_timestamp()
    ORDER BY scheduled_at LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING queue, id, blocked
"""

#: The keys of runs that are executed by nobody.
_ABANDONED_KEYS = """
SELECT task, concurrency_key FROM triggerkit.runs
WHERE status = 'executing' AND concurrency_key IS NOT NULL AND (
    worker = ANY (%s) OR worker <> ALL (ARRAY(SELECT id FROM triggerkit.workers)))
"""

#: Every executing run of a worker that is gone is queued again, or given up.
_RETURN = """
WITH gone AS (
    UPDATE triggerkit.runs
    SET crashes = crashes + 1,
        status = CASE WHEN crashes + 1 >= %(most)s THEN 'crashed' ELSE 'queued' END,
        finished_at = CASE WHEN crashes + 1 >= %(most)s THEN clock_timestamp() END,
        queued_at = clock_timestamp(),
        error = jsonb_build_object('type', 'WorkerDied', 'message',
            'the worker ' || worker || ' died while it executed this run', 'traceback', '')
    WHERE status = 'executing' AND (
        worker = ANY (%(dead)s) OR worker <> ALL (ARRAY(SELECT id FROM triggerkit.workers)))
    RETURNING id, task, queue, status, attempt, started_at, worker, error, concurrency_key),
noted AS (
    INSERT INTO triggerkit.attempts (run_id, attempt, status, started_at, finished_at, worker,
        error)
    SELECT id, attempt, 'crashed', started_at, clock_timestamp(), worker, error FROM gone
    ON CONFLICT DO NOTHING)
SELECT queue, id, status, task, concurrency_key, worker FROM gone
"""

#: A queue's list in Redis is first in, first out, so a run that was pushed clearly before the
#: list's first ones (%(head)s) is no longer in it; of an empty list every run is missing that is
#: not on its way. They go to the list's end, and so count as pushed now.
_STRAYS = """
UPDATE triggerkit.runs SET queued_at = clock_timestamp()
WHERE id = ANY (ARRAY(
    SELECT id FROM triggerkit.runs
    WHERE status = 'queued' AND NOT blocked AND queue = %(queue)s
      AND queued_at < CASE WHEN %(head)s::text[] = '{}' THEN clock_timestamp() ELSE (
          SELECT min(queued_at) FROM triggerkit.runs
          WHERE id = ANY (%(head)s) AND status || '' = 'queued' AND NOT blocked
      ) END - %(settling_s)s * interval '1 second'
    ORDER BY queued_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
RETURNING queue, id
"""


def promote(connection: psycopg.Connection) -> list[tuple[str, str]]:
    """Queue the runs whose time has come, at most `CHUNK` of them."""
    due = connection.execute(_PROMOTE, [CHUNK]).fetchall()
    return [(queue, run_id) for queue, run_id, blocked in due if not blocked]


def return_runs(connection: psycopg.Connection, dead: Sequence[str]) -> list[tuple[str, str]]:
    """Take the runs from workers that are `dead` or not there, and forget those workers."""
    workers = list(dead)
    with connection.transaction():
        # The keys are locked before the rows, as a completion does that comes too late.
        held = connection.execute(_ABANDONED_KEYS, [workers]).fetchall()
        connection.execute(LOCK, lock_parameters(held))
        gone = connection.execute(_RETURN, {"dead": workers, "most": MAX_CRASHES}).fetchall()
        connection.execute("DELETE FROM triggerkit.workers WHERE id = ANY (%s)", [workers])
        given_up = unblock_parameters((t, k) for _, _, s, t, k, _ in gone if s == "crashed")
        unblocked = connection.execute(UNBLOCK, given_up).fetchall()
    for _, run_id, status, _, _, worker in gone:
        logger.warning("the worker %s died while it executed %s: %s", worker, run_id, status)
    queued = [(queue, run_id) for queue, run_id, status, *_ in gone if status == "queued"]
    return queued + runnable(unblocked)


def strays(
    connection: psycopg.Connection, queue: str, head: Sequence[str]
) -> list[tuple[str, str]]:
    """Runs of `queue` that Redis lost, at most `CHUNK`, given the first ids of its list.

    None are found while no id of `head` is a queued run's: workers take such ids away first.
    """
    parameters = {"queue": queue, "head": list(head), "limit": CHUNK, "settling_s": SETTLING_S}
    return [(name, run_id) for name, run_id in connection.execute(_STRAYS, parameters).fetchall()]
