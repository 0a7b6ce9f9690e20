"""Counting the unfinished runs of each task."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

#: Runs of one kind that are counted.
MOST_COUNTED = 100_000

#: Each kind by its own index, which holds no finished run.
_COUNT = """
SELECT task, status, count(*)::int FROM (
    (SELECT task, status FROM triggerkit.runs
     WHERE status = 'queued' AND NOT blocked AND gate IS DISTINCT FROM 'held' LIMIT %(most)s)
    UNION ALL
    (SELECT task, 'held' FROM triggerkit.runs
     WHERE status = 'queued' AND NOT blocked AND gate = 'held' LIMIT %(most)s)
    UNION ALL
    (SELECT task, status FROM triggerkit.runs
     WHERE status IN ('delayed', 'retrying') LIMIT %(most)s)
    UNION ALL
    (SELECT task, status FROM triggerkit.runs WHERE status = 'executing' LIMIT %(most)s)) r
GROUP BY 1, 2
"""


@dataclass(slots=True)
class TaskCounts:
    """The unfinished runs of a task that wait for no other of their key, each kind counted up to
    100,000. `held` ones wait for their queue."""

    queued: int = 0
    held: int = 0
    delayed: int = 0
    retrying: int = 0
    executing: int = 0


async def count_tasks(connection: psycopg.AsyncConnection) -> dict[str, TaskCounts]:
    """Return the counts by task."""
    cursor = await connection.execute(_COUNT, {"most": MOST_COUNTED})
    found: dict[str, TaskCounts] = {}
    for task, status, count in await cursor.fetchall():
        setattr(found.setdefault(task, TaskCounts()), status, count)
    return found
