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

#: The runs of a task that are to be done and wait for no other of their key, each kind by its own
#: index.
_COUNT = " UNION ALL ".join(
    f"(SELECT id FROM triggerkit.runs WHERE task = %(task)s AND {kind} LIMIT %(most)s)"  # noqa: S608
    for kind in (
        "status = 'queued' AND NOT blocked AND gate IS DISTINCT FROM 'held'",
        "status = 'queued' AND NOT blocked AND gate = 'held'",
        "status = 'retrying'",
        "status = 'executing'",
    )
)


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
        count = await connection.execute(f"SELECT count(*)::int FROM ({_COUNT}) AS r", given)  # noqa: S608
        [(runs,)] = await count.fetchall()
        # A task that has nothing to do waits for nothing.
        if runs:
            found.append(
                WaitingTask(breaker.task, breaker.opened_at, breaker.probe_at, runs, breaker.error)
            )
    cursor = await connection.execute(_WAITING, [MANY_WAITS, MOST_RUNS])
    rows = [row for row in await cursor.fetchall() if row[0] not in breakers]
    errors: dict[str, str] = {}
    if rows:
        named = await connection.execute(_ERRORS, [[row[3] for row in rows]])
        errors = dict(await named.fetchall())
    found += [
        WaitingTask(task, since, next_at, count, errors.get(run_id, ""), run_id, waits)
        for task, count, waits, run_id, since, next_at in rows
    ]
    return sorted(found, key=lambda waiting: waiting.task)
