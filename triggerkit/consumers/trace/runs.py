"""The runs in the trace of a change: their waits, attempts and spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from triggerkit.errors import TriggerkitError
from triggerkit.state.reading import Reads, rows_of

#: Spans and lines of one run that are shown: spans first, and the last lines.
MOST_SPANS = 500

#: By the index of idempotency keys, which begins with the task: each task there is, one look.
_RUNS = """
WITH RECURSIVE tasks (task) AS (
    (SELECT task FROM triggerkit.runs WHERE idempotency_key IS NOT NULL ORDER BY task LIMIT 1)
    UNION ALL
    SELECT (SELECT r.task FROM triggerkit.runs r
            WHERE r.idempotency_key IS NOT NULL AND r.task > t.task ORDER BY r.task LIMIT 1)
    FROM tasks t WHERE t.task IS NOT NULL)
SELECT r.id, r.task, r.queue, r.status, r.items, r.created_at,
    to_timestamp((r.rank + r.priority * 1000000::bigint) / 1000000.0) AS queued_at,
    r.started_at, r.finished_at,
    coalesce((SELECT jsonb_agg(jsonb_build_object('attempt', a.attempt, 'status', a.status,
        'started_at', a.started_at, 'finished_at', a.finished_at, 'worker', a.worker,
        'error', a.error ->> 'type') ORDER BY a.attempt)
     FROM (SELECT attempt, status, started_at, finished_at, worker, error
           FROM triggerkit.attempts WHERE run_id = r.id
           UNION ALL SELECT r.attempt, r.status, r.started_at, r.finished_at, r.worker, NULL
           WHERE r.status IN ('completed', 'executing')) a), '[]') AS attempts,
    coalesce((SELECT jsonb_agg(to_jsonb(s) - 'run_id' ORDER BY s.id)
     FROM (SELECT * FROM triggerkit.spans WHERE run_id = r.id
           ORDER BY kind = 'span' DESC, id DESC LIMIT %s) s), '[]')
        AS spans
FROM triggerkit.runs r WHERE r.id = ANY (ARRAY(
    SELECT k.id FROM tasks t JOIN triggerkit.runs k
        ON k.task = t.task AND k.idempotency_key = ANY (%s)) || %s::text[])
ORDER BY r.seq
"""


@dataclass(frozen=True, slots=True)
class TracedRun:
    """A run that the change made, alone or with others; `attempts` and `spans`, those with the
    lines that it logged, as objects, in order. It was last queued at `queued_at`."""

    id: str
    task: str
    queue: str
    status: str
    items: int | None
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: Sequence[dict[str, Any]]
    spans: Sequence[dict[str, Any]]


async def runs_made(
    connection: Reads, keys: Sequence[str], run_ids: Sequence[str]
) -> list[TracedRun]:
    """Return the runs with one of these idempotency keys, of whatever task, and those of these
    ids."""
    given = [MOST_SPANS, list(keys), list(run_ids)]
    return await rows_of(connection, _RUNS, given, into=TracedRun)


async def position_of_run(connection: Reads, run_id: str) -> tuple[int, int, str]:
    """Return the database, the position and the consumer that a run came from; of several the
    first.

    Raises:
        TriggerkitError: there is no such run, or no change made it.
    """
    rows = await rows_of(
        connection,
        "SELECT c.database_id, (r.source ->> 'position')::bigint, c.name FROM triggerkit.runs r "
        "LEFT JOIN triggerkit.consumers c ON c.name = r.source ->> 'consumer' WHERE r.id = %s",
        [run_id],
    )
    if not rows:
        raise TriggerkitError(f"no run has the id {run_id!r}; see `triggerkit runs list`")
    [row] = rows
    if None in row:
        raise TriggerkitError(
            f"{run_id} was not created by a change of an existing consumer; to see it, run: "
            f"triggerkit runs show {run_id}"
        )
    return row[0], row[1], row[2]
