"""The tasks whose runs wait: for what they call, or since they ask for it again and again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg

from triggerkit.runs.breakers import open_breakers

#: Waits of a run after which it is told of: by then it is more than a short limit.
MANY_WAITS = 10

#: Runs that are looked at.
MOST_RUNS = 10_000

_WAITING = """
SELECT task, count(*)::int, max(waits), min(id), min(created_at), min(scheduled_at) FROM (
    SELECT task, waits, id, created_at, scheduled_at FROM triggerkit.runs
    WHERE status = 'retrying' AND waits >= %s LIMIT %s) AS r
GROUP BY task ORDER BY task
"""

_ERRORS = """
SELECT id, concat_ws(': ', error ->> 'type', left(split_part(error ->> 'message', E'\\n', 1), 300))
FROM triggerkit.runs WHERE id = ANY (%s)
"""

#: Those that are queued, and those that wait for a retry; each by its own index.
_COUNT = """
SELECT (SELECT count(*) FROM (SELECT FROM triggerkit.runs
        WHERE task = %(task)s AND status = 'queued' AND NOT blocked
            AND gate IS DISTINCT FROM 'held' LIMIT %(most)s) AS ready)
    + (SELECT count(*) FROM (SELECT FROM triggerkit.runs
        WHERE status = 'retrying' AND task = %(task)s LIMIT %(most)s) AS retrying)
"""


@dataclass(frozen=True, slots=True)
class WaitingTask:
    """A task that waits: since when, how many of its runs, the error, and when one is next tried.

    `run` is one that has waited `waits` times, where no breaker holds them all.
    """

    task: str
    since: datetime
    next_at: datetime
    runs: int
    error: str
    run: str | None = None
    waits: int = 0


async def waiting_tasks(connection: psycopg.AsyncConnection) -> list[WaitingTask]:
    """Return the tasks that wait, by name; of their runs 10,000 of each status are counted."""
    breakers = await open_breakers(connection)
    found: list[WaitingTask] = []
    for breaker in breakers.values():
        given = {"task": breaker.task, "most": MOST_RUNS}
        row = await (await connection.execute(_COUNT, given)).fetchone()
        runs = 0 if row is None else int(row[0])
        found.append(
            WaitingTask(breaker.task, breaker.opened_at, breaker.probe_at, runs, breaker.error)
        )
    cursor = await connection.execute(_WAITING, [MANY_WAITS, MOST_RUNS])
    rows = [row for row in await cursor.fetchall() if row[0] not in breakers]
    named = await connection.execute(_ERRORS, [[row[3] for row in rows]])
    errors: dict[str, str] = dict(await named.fetchall())
    found += [
        WaitingTask(task, since, next_at, count, errors.get(run_id, ""), run_id, waits)
        for task, count, waits, run_id, since, next_at in rows
    ]
    return sorted(found, key=lambda waiting: waiting.task)
