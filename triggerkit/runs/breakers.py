"""Breakers: while what a task calls is busy or away its runs wait, and one at a time is tried."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import psycopg

from triggerkit.runs.keys import READY
from triggerkit.runs.run import Outcome, ReadyRun
from triggerkit.runs.transitions import admit
from triggerkit.state.reading import Reads, rows_of

logger = logging.getLogger(__name__)

#: Seconds between two probes: at least so many, at most so many unless more was asked for; in
#: between, a sixtieth of the time that the breaker has been open.
SHORTEST_S = 1.0
LONGEST_S = 15.0
PACE = 1 / 60

#: Seconds in which a probe that was named is claimed; then another one is named.
CLAIMED_S = 5.0

#: A breaker that opens again within so many seconds is not told of anew, and one that was open for
#: less is not said to be closed.
QUIET_S = 10.0

#: Most runs that are pushed when a breaker closes; the keeper finds the others.
CHUNK = 10_000

#: Longest message of an error that is told, in characters.
MAX_MESSAGE = 300

#: An attempt that began before the breaker was opened must not bring the probe forward.
_OPEN = f"""
INSERT INTO triggerkit.breakers AS b (task, probe_at, error)
SELECT g.task, now() + greatest(g.wait_s, {SHORTEST_S}) * interval '1 second', g.error::jsonb
FROM unnest(%s::text[], %s::float[], %s::text[]) AS g (task, wait_s, error) ORDER BY g.task
ON CONFLICT (task) DO UPDATE SET
    error = excluded.error,
    opened_at = CASE WHEN b.closed_at IS NULL THEN b.opened_at ELSE now() END,
    told_at = CASE WHEN b.closed_at < now() - {QUIET_S} * interval '1 second' THEN now()
        ELSE b.told_at END,
    probe = CASE WHEN b.closed_at IS NULL AND NOT coalesce(b.probe = ANY (%s), false)
        THEN b.probe END,
    probe_at = CASE WHEN b.closed_at IS NOT NULL THEN excluded.probe_at ELSE greatest(
        excluded.probe_at,
        now() + least({LONGEST_S} * interval '1 second', (now() - b.opened_at) * {PACE}),
        CASE WHEN NOT coalesce(b.probe = ANY (%s), false) THEN b.probe_at END) END,
    closed_at = NULL
RETURNING b.task, b.told_at = now()
"""  # noqa: S608 - of constants

#: What was let through the gate of a queue and does not start gives its place to other tasks.
_HOLD = """
UPDATE triggerkit.runs SET gate = 'held' WHERE id = ANY (ARRAY(
    SELECT id FROM triggerkit.runs
    WHERE gate = 'open' AND status || '' = 'queued' AND task = ANY (%s) FOR UPDATE SKIP LOCKED))
"""

_CLOSE = """
UPDATE triggerkit.breakers SET closed_at = clock_timestamp(), probe = NULL
WHERE closed_at IS NULL AND probe = ANY (%s)
RETURNING task, extract(epoch FROM clock_timestamp() - opened_at)::float
"""

_READY_RUNS = f"""
SELECT r.task, r.id, r.rank FROM triggerkit.runs r
WHERE r.task = %s AND {READY} ORDER BY r.rank LIMIT %s
"""  # noqa: S608 - of constants

#: Names the run that waited longest as the probe of each breaker that is due, unless the last one
#: executes. A run that waits at a gate is named only when no other is there.
_NAME = f"""
WITH paused AS (SELECT name FROM triggerkit.queues WHERE paused_at IS NOT NULL),
due AS (
    SELECT b.task, EXISTS (SELECT FROM triggerkit.runs e
        WHERE e.id = b.probe AND e.status || '' = 'executing') AS executes
    FROM triggerkit.breakers b
    WHERE b.closed_at IS NULL AND b.probe_at <= statement_timestamp() FOR UPDATE SKIP LOCKED),
next AS (
    SELECT due.task, due.executes, CASE WHEN NOT due.executes THEN coalesce(
        (SELECT r.id FROM triggerkit.runs r
         WHERE r.task = due.task AND {READY} AND r.queue <> ALL (ARRAY(SELECT name FROM paused))
         ORDER BY r.rank LIMIT 1),
        (SELECT held.id FROM triggerkit.queues q, LATERAL (
            SELECT r.id, r.rank FROM triggerkit.runs r
            WHERE r.queue = q.name AND r.status = 'queued' AND NOT r.blocked AND r.gate = 'held'
                AND r.task = due.task ORDER BY r.rank LIMIT 1) AS held
         WHERE q.paused_at IS NULL ORDER BY held.rank LIMIT 1)) END AS id
    FROM due)
UPDATE triggerkit.breakers b
SET probe = CASE WHEN next.executes THEN b.probe ELSE next.id END,
    probe_at = clock_timestamp() + interval '1 second'
        * CASE WHEN next.id IS NULL THEN {SHORTEST_S} ELSE {CLAIMED_S} END
FROM next WHERE b.task = next.task
RETURNING next.id
"""  # noqa: S608 - of constants

_NAMED = "SELECT task, id, rank, gate, queue FROM triggerkit.runs WHERE id = ANY (%s)"

_OPEN_NOW = """
SELECT task, opened_at, probe_at, error ->> 'type' AS type, error ->> 'message' AS message
FROM triggerkit.breakers WHERE closed_at IS NULL ORDER BY task
"""


@dataclass(frozen=True, slots=True)
class Breaker:
    """An open breaker: since when the task waits, when the next run is tried, and the error."""

    task: str
    opened_at: datetime
    probe_at: datetime
    type: str
    message: str

    @property
    def error(self) -> str:
        """Return the error in one line."""
        return _line(self.type, self.message)


def settle_breakers(connection: psycopg.Connection, outcomes: Sequence[Outcome]) -> list[ReadyRun]:
    """Open and close breakers as `outcomes`, which are written, say; return what may go on."""
    away = [o for o in outcomes if o.away]
    ended = [o.run.id for o in outcomes if o.run.probes and not o.away and _is_answer(o)]
    if away:
        _open(connection, away)
    return _close(connection, ended) if ended else []


def name_probes(connection: psycopg.Connection) -> list[ReadyRun]:
    """Name a probe for each breaker that is due; return those that are to be pushed."""
    named = [run_id for (run_id,) in connection.execute(_NAME).fetchall() if run_id is not None]
    rows = connection.execute(_NAMED, [named]).fetchall() if named else []
    held = {row[4] for row in rows if row[3] == "held"}
    return [ReadyRun(*row[:3]) for row in rows if row[3] != "held"] + admit(connection, held)


async def open_breakers(connection: Reads) -> dict[str, Breaker]:
    """Return the open breakers by task."""
    found = await rows_of(connection, _OPEN_NOW, into=Breaker)
    return {breaker.task: breaker for breaker in found}


def _is_answer(outcome: Outcome) -> bool:
    """Tell whether what the task calls works by this attempt: one that was stopped does not say."""
    return outcome.status not in ("canceled", "timed_out")


def _open(connection: psycopg.Connection, away: Sequence[Outcome]) -> None:
    longest: dict[str, Outcome] = {}
    for outcome in away:
        known = longest.get(outcome.run.task)
        if known is None or (outcome.retry_in_s or 0) > (known.retry_in_s or 0):
            longest[outcome.run.task] = outcome
    probes = [o.run.id for o in away if o.run.probes]
    columns: list[Any] = [
        list(longest),
        [o.retry_in_s for o in longest.values()],
        [_error(o) for o in longest.values()],
        probes,
        probes,
    ]
    opened = connection.execute(_OPEN, columns).fetchall()
    connection.execute(_HOLD, [list(longest)])
    for task, is_news in opened:
        error = longest[task].error
        if is_news and error is not None:
            logger.warning(
                "%s waits: %s; its runs use up no attempts, and one is tried from time to time",
                task,
                _line(error.type, error.message),
            )


def _close(connection: psycopg.Connection, run_ids: Sequence[str]) -> list[ReadyRun]:
    ready: list[ReadyRun] = []
    for task, open_s in connection.execute(_CLOSE, [list(run_ids)]).fetchall():
        if open_s >= QUIET_S:
            logger.warning("%s goes on after %.0f s", task, open_s)
        rows = connection.execute(_READY_RUNS, [task, CHUNK]).fetchall()
        ready += [ReadyRun(*row) for row in rows]
    return ready


def _error(outcome: Outcome) -> str:
    error = outcome.error
    told = {} if error is None else {"type": error.type, "message": error.message[:MAX_MESSAGE]}
    return orjson.dumps(told).decode()


def _line(kind: str, message: str) -> str:
    first = (message.strip().splitlines() or [""])[0][:MAX_MESSAGE]
    return f"{kind}: {first}" if first else kind
