"""Measure the backlog: how many runs wait for a worker, and since when. Made for autoscalers: it
reads as much of a million runs as of a few thousand."""

from __future__ import annotations

from dataclasses import dataclass

from triggerkit.runs.keys import READY
from triggerkit.state.reading import Reads, rows_of

#: Runs that are counted in all, and of each task at least: beyond, there are that many or more.
MOST_COUNTED = 5_000
LEAST_COUNTED = 50

#: The tasks by steps through the index, and of each the runs that start next. What waits for its
#: queue or its key is left out: no worker more would start it.
_BACKLOG = f"""
WITH RECURSIVE waiting AS (
    (SELECT r.task FROM triggerkit.runs r WHERE {READY} ORDER BY r.task, r.rank LIMIT 1)
    UNION ALL
    SELECT next.task FROM waiting, LATERAL (
        SELECT r.task FROM triggerkit.runs r WHERE {READY} AND r.task > waiting.task
        ORDER BY r.task, r.rank LIMIT 1) AS next),
room AS MATERIALIZED (
    SELECT greatest(%(least)s, %(most)s / greatest(1, count(*))) AS runs FROM waiting),
counted AS (
    SELECT n.queue, count(*) AS runs, min(n.since) AS since,
        sum(count(*)) OVER (PARTITION BY w.task) >= (SELECT runs FROM room) AS is_at_least
    FROM waiting w, LATERAL (
        SELECT r.queue, r.rank + r.priority * 1000000::bigint AS since FROM triggerkit.runs r
        WHERE r.task = w.task AND {READY} ORDER BY r.rank LIMIT (SELECT runs FROM room)) AS n
    GROUP BY w.task, n.queue)
SELECT queue, sum(runs)::bigint, bool_or(is_at_least),
    greatest(0, extract(epoch FROM clock_timestamp()) - min(since) / 1000000.0)::float
FROM counted GROUP BY 1 ORDER BY 1
"""  # noqa: S608 - of constants


@dataclass(frozen=True, slots=True)
class QueueBacklog:
    """The ready runs of a queue: `runs` or, with `is_at_least`, more; the oldest is ready for so
    many seconds."""

    queue: str
    runs: int
    is_at_least: bool
    oldest_seconds: float


async def backlog(connection: Reads) -> list[QueueBacklog]:
    """Return the queues that have ready runs, by name."""
    given = {"most": MOST_COUNTED, "least": LEAST_COUNTED}
    return [QueueBacklog(*row) for row in await rows_of(connection, _BACKLOG, given)]
