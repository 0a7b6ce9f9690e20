"""Runs that go on: those that are due, those of dead workers, and those that the transport lost.

Each function changes runs in Postgres and returns those that are to be pushed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import psycopg

from triggerkit.runs.keys import GATE, NOW_RANK, READY
from triggerkit.runs.run import ReadyRun
from triggerkit.runs.transitions import Left, admit, end

logger = logging.getLogger(__name__)

#: Attempts in which its worker died after which a run is given up: the last of them alone in it, or
#: so many beside others that it would never be found out else.
MAX_CRASHES = 3
MAX_SUSPECTED = 10

#: A ready run younger than this many seconds may still be on its way to the transport. One that is
#: from the future is from before the clock was set back.
STRAY_AFTER_S = 1.0

#: Most runs changed by one statement. What is due is compared with the time of the statement, which
#: an index can be searched for; of `clock_timestamp()` Postgres must take that it changes from row
#: to row, and would read what is not due, too.
CHUNK = 10_000

_PROMOTE = f"""
UPDATE triggerkit.runs r
SET status = 'queued', gate = {GATE}, rank = {NOW_RANK} - r.priority * 1000000::bigint
WHERE id = ANY (ARRAY(
    SELECT id FROM triggerkit.runs
    WHERE status IN ('delayed', 'retrying') AND scheduled_at <= statement_timestamp()
    ORDER BY scheduled_at LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING task, id, rank, blocked, gate, queue
"""  # noqa: S608 - of constants

#: What callers' transactions have accepted and nobody has looked at.
_PENDING = "SELECT id FROM triggerkit.runs WHERE pending ORDER BY seq LIMIT %s"

_ADMIT_PENDING = """
UPDATE triggerkit.runs SET pending = false WHERE id = ANY (%s)
RETURNING task, concurrency_key, queue, false
"""

#: Runs whose time to start is over.
_OVERDUE = """
SELECT id FROM triggerkit.runs
WHERE expires_at <= statement_timestamp() AND status IN ('delayed', 'queued') AND attempt = 0
ORDER BY expires_at LIMIT %s
"""

_EXPIRE = """
UPDATE triggerkit.runs r SET status = 'expired', finished_at = clock_timestamp(), gate = NULL
FROM (SELECT id, gate FROM triggerkit.runs WHERE id = ANY (%s) FOR UPDATE SKIP LOCKED) AS before
WHERE r.id = before.id AND r.status IN ('delayed', 'queued') AND r.attempt = 0
RETURNING r.task, r.concurrency_key, r.queue, before.gate = 'open'
"""

#: The runs that are executed by nobody.
_ABANDONED = """
SELECT id FROM triggerkit.runs
WHERE status = 'executing' AND (
    worker = ANY (%s) OR worker <> ALL (ARRAY(SELECT id FROM triggerkit.workers)))
LIMIT %s
"""

#: Every executing run of a worker that is gone is queued again, at its old place, since it has
#: waited once; or it is given up. A worker that was asked to end died of that, of no run. Else its
#: runs are suspected, and the one that can be to blame is the one that executed alone.
_RETURN = f"""
WITH found AS (
    SELECT r.id, r.gate, d.crash, CASE WHEN r.cancel_requested_at IS NOT NULL THEN 'canceled'
        WHEN r.crashes + d.crash >= CASE WHEN d.others THEN %(most_suspected)s ELSE %(most)s END
            AND d.crash > 0 THEN 'crashed' ELSE 'queued' END AS status
    FROM triggerkit.runs r, LATERAL (
        SELECT CASE WHEN EXISTS (SELECT FROM triggerkit.workers w
                WHERE w.id = r.worker AND w.stopping) THEN 0 ELSE 1 END AS crash,
            EXISTS (SELECT FROM triggerkit.runs o WHERE o.worker = r.worker
                AND o.status = 'executing' AND o.id <> r.id) AS others) AS d
    WHERE r.id = ANY (%(ids)s) AND r.status || '' = 'executing' AND (
        r.worker = ANY (%(dead)s)
        OR r.worker <> ALL (ARRAY(SELECT id FROM triggerkit.workers)))
    FOR UPDATE OF r),
gone AS (
    UPDATE triggerkit.runs r
    SET crashes = r.crashes + found.crash, status = found.status,
        finished_at = CASE WHEN found.status <> 'queued' THEN clock_timestamp() END,
        gate = CASE WHEN found.status = 'queued' THEN {GATE} END,
        error = jsonb_build_object('type', 'WorkerDied', 'message',
            'the worker ' || r.worker || ' died while it executed this run', 'traceback', '')
    FROM found WHERE r.id = found.id
    RETURNING r.task, r.concurrency_key, r.queue, found.gate = 'open' AS was_open, r.id, r.rank,
        r.status, r.gate, r.attempt, r.started_at, r.worker, r.error),
noted AS (
    INSERT INTO triggerkit.attempts (run_id, attempt, status, started_at, finished_at, worker,
        error)
    SELECT id, attempt, 'crashed', started_at, clock_timestamp(), worker, error FROM gone
    ON CONFLICT DO NOTHING)
SELECT task, concurrency_key, queue, was_open OR gate = 'held', id, rank, status, gate, worker
FROM gone
"""  # noqa: S608 - of constants

#: The transport gives a task's runs in the order of their ranks, so one that stands before the
#: first there (%(first)s) is not in it; when it has none, every run is missing that is not on its
#: way. They are pushed with the ranks they have.
_STRAYS = f"""
SELECT r.task, r.id, r.rank FROM triggerkit.runs r
WHERE r.task = %(task)s AND {READY} AND r.rank < %(first)s
    AND abs({NOW_RANK} - r.rank - r.priority * 1000000::bigint) > %(stray_after_us)s
    AND r.queue <> ALL (ARRAY(SELECT name FROM triggerkit.queues WHERE paused_at IS NOT NULL))
ORDER BY r.rank LIMIT %(limit)s
"""  # noqa: S608 - of constants

#: Those of given runs that are ready. The status is compared such that no index of the ready runs
#: fits: it would be read from end to end.
_READY = """
SELECT task, id, rank FROM triggerkit.runs
WHERE id = ANY (%s) AND status || '' = 'queued' AND NOT blocked AND gate IS DISTINCT FROM 'held'
"""

_STRAY_AFTER_US = int(STRAY_AFTER_S * 1_000_000)

#: Greater than every rank.
_LAST_RANK = 2**63 - 1


class _DueRun(NamedTuple):
    """A row of `_PROMOTE`."""

    task: str
    id: str
    rank: int
    blocked: bool
    gate: str | None
    queue: str


class _Returned(NamedTuple):
    """A row of `_RETURN`."""

    task: str
    concurrency_key: str | None
    queue: str
    frees_place: bool
    id: str
    rank: int
    status: str
    gate: str | None
    worker: str


class Moved(NamedTuple):
    """A count of runs that were changed, and those of them, or behind them, that are to be
    pushed."""

    moved: int
    ready: list[ReadyRun]


def admit_pending(connection: psycopg.Connection) -> list[ReadyRun]:
    """Take in the runs that callers' transactions have accepted, at most `CHUNK` of them."""
    pending = [run_id for (run_id,) in connection.execute(_PENDING, [CHUNK]).fetchall()]
    return end(connection, pending, _ADMIT_PENDING, [pending], Left._make)[1] if pending else []


def promote(connection: psycopg.Connection) -> Moved:
    """Queue the runs whose time has come, at most `CHUNK` of them."""
    due = [_DueRun._make(row) for row in connection.execute(_PROMOTE, [CHUNK]).fetchall()]
    ready = [
        ReadyRun(run.task, run.id, run.rank) for run in due if not run.blocked and run.gate is None
    ]
    gates = {run.queue for run in due if run.gate is not None}
    return Moved(len(due), ready + admit(connection, gates))


def expire(connection: psycopg.Connection) -> Moved:
    """End the runs that did not start in time, at most `CHUNK` of them."""
    overdue = [run_id for (run_id,) in connection.execute(_OVERDUE, [CHUNK]).fetchall()]
    if not overdue:
        return Moved(0, [])
    ended, ready = end(connection, overdue, _EXPIRE, [overdue], Left._make)
    return Moved(len(ended), ready)


def return_runs(connection: psycopg.Connection, dead: Sequence[str]) -> list[ReadyRun]:
    """Take the runs from workers that are `dead` or not there, and forget those workers."""
    workers = list(dead)
    ready: list[ReadyRun] = []
    while found := connection.execute(_ABANDONED, [workers, CHUNK]).fetchall():
        ids = [run_id for (run_id,) in found]
        parameters = {
            "ids": ids,
            "dead": workers,
            "most": MAX_CRASHES,
            "most_suspected": MAX_SUSPECTED,
        }
        gone, freed = end(connection, ids, _RETURN, parameters, _Returned._make)
        for run in gone:
            logger.warning(
                "the worker %s died while it executed %s: %s", run.worker, run.id, run.status
            )
        ready += freed
        ready += [
            ReadyRun(run.task, run.id, run.rank)
            for run in gone
            if run.status == "queued" and run.gate is None
        ]
    connection.execute("DELETE FROM triggerkit.workers WHERE id = ANY (%s)", [workers])
    return ready


def strays(connection: psycopg.Connection, task: str, first_rank: float) -> list[ReadyRun]:
    """Ready runs of `task` that the transport does not have, at most `CHUNK`, given the first rank
    that it has: they are lost, or were just taken and are being claimed."""
    if first_rank == -math.inf:
        return []
    parameters = {
        "task": task,
        "first": _LAST_RANK if math.isinf(first_rank) else int(first_rank),
        "limit": CHUNK,
        "stray_after_us": _STRAY_AFTER_US,
    }
    return [ReadyRun(*row) for row in connection.execute(_STRAYS, parameters).fetchall()]


def ready_among(connection: psycopg.Connection, run_ids: Sequence[str]) -> list[ReadyRun]:
    """Return those of `run_ids` that are ready."""
    return [ReadyRun(*row) for row in connection.execute(_READY, [list(run_ids)]).fetchall()]
