"""Counting the unfinished runs that wait for no other of their key."""

from __future__ import annotations

from typing import Literal, get_args

from triggerkit.state.reading import Reads, rows_of

#: Runs of one kind that are counted.
MOST_COUNTED = 100_000

#: Each kind by its own index, which holds no finished run.
_COUNT = """
SELECT {by}, status, count(*)::int FROM (
    (SELECT {by}, status FROM triggerkit.runs
     WHERE status = 'queued' AND NOT blocked AND gate IS DISTINCT FROM 'held' LIMIT %(most)s)
    UNION ALL
    (SELECT {by}, 'held' FROM triggerkit.runs
     WHERE status = 'queued' AND NOT blocked AND gate = 'held' LIMIT %(most)s)
    UNION ALL
    (SELECT {by}, status FROM triggerkit.runs
     WHERE status IN ('delayed', 'retrying') LIMIT %(most)s)
    UNION ALL
    (SELECT {by}, status FROM triggerkit.runs WHERE status = 'executing' LIMIT %(most)s)) r
GROUP BY 1, 2 ORDER BY 1, 2
"""

By = Literal["queue", "task"]

_COUNTS: dict[By, str] = {by: _COUNT.format(by=by) for by in get_args(By)}


async def count_unfinished(connection: Reads, by: By) -> dict[tuple[str, str], int]:
    """Return how many there are by queue or task, and status: each kind up to 100,000; `held` ones,
    which wait for their queue, apart."""
    found = await rows_of(connection, _COUNTS[by], {"most": MOST_COUNTED})
    return {(name, status): count for name, status, count in found}
