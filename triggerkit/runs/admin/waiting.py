"""The tasks whose runs wait: for what they call, or since they ask for it again and again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

from triggerkit.runs.breakers import open_breakers
from triggerkit.state.reading import Reads, rows_of

#: Waits of a run after which it is told of: by then it is more than a short limit.
MANY_WAITS = 10

#: Runs that are looked at.
MOST_RUNS = 10_000

_WAITING = """
SELECT w.*, concat_ws(': ', r.error ->> 'type',
    left(split_part(r.error ->> 'message', E'\\n', 1), 300))
FROM (
    SELECT task, count(*)::int, max(waits), min(id) AS id, min(created_at), min(scheduled_at) FROM (
        SELECT task, waits, id, created_at, scheduled_at FROM triggerkit.runs
        WHERE status = 'retrying' AND waits >= %s LIMIT %s) AS r
    GROUP BY task) AS w
JOIN triggerkit.runs r ON r.id = w.id ORDER BY w.task
"""

#: The runs of each task that are to be done and wait for no other of their key, each kind by its
#: own index.
_COUNTS = f"""
SELECT w.task, count(r.id)::int
FROM unnest(%s::text[]) w (task) CROSS JOIN (SELECT %s::bigint AS most) m LEFT JOIN LATERAL ({
    " UNION ALL ".join(
        f"(SELECT id FROM triggerkit.runs WHERE task = w.task AND {kind} LIMIT m.most)"
        for kind in (
            "status = 'queued' AND NOT blocked AND gate IS DISTINCT FROM 'held'",
            "status = 'queued' AND NOT blocked AND gate = 'held'",
            "status = 'retrying'",
            "status = 'executing'",
        )
    )
}) r ON true GROUP BY w.task
"""  # noqa: S608 - of constants


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


async def waiting_tasks(connection: Reads) -> list[WaitingTask]:
    """Return the tasks that wait, by name; of their runs 10,000 of each status are counted."""
    breakers, waiting = await asyncio.gather(
        open_breakers(connection), rows_of(connection, _WAITING, [MANY_WAITS, MOST_RUNS])
    )
    found: list[WaitingTask] = []
    if breakers:
        counts: dict[str, int] = dict(
            await rows_of(connection, _COUNTS, [list(breakers), MOST_RUNS])
        )
        # A task that has nothing to do waits for nothing.
        found = [
            WaitingTask(b.task, b.opened_at, b.probe_at, counts[b.task], b.error)
            for b in breakers.values()
            if counts[b.task]
        ]
    found += [
        WaitingTask(task, since, next_at, count, error, run_id, waits)
        for task, count, waits, run_id, since, next_at, error in waiting
        if task not in breakers
    ]
    return sorted(found, key=lambda waiting: waiting.task)
