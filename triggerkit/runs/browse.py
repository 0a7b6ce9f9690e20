"""Looking at runs: lists and one run, as the CLI and the API show them."""

from __future__ import annotations

from typing import Any

import orjson
import psycopg
from psycopg import sql
from psycopg.rows import dict_row

#: Most runs in one page.
MAX_LIMIT = 1000

_COLUMNS = """
SELECT r.id, r.task, r.queue, r.status, r.attempt, r.max_attempts, r.payload, r.output, r.error,
    r.items, r.idempotency_key, r.concurrency_key, r.tags, r.metadata, r.source, r.created_at,
    r.scheduled_at, r.started_at, r.finished_at, r.worker, r.version, r.replay_of, r.crashes,
    CASE
        WHEN r.status = 'queued' AND r.blocked THEN 'its key is held by ' || coalesce((
            SELECT h.id || ' (' || h.status || ')' FROM triggerkit.runs h
            WHERE h.task = r.task AND h.concurrency_key = r.concurrency_key
              AND h.finished_at IS NULL AND h.seq < r.seq ORDER BY h.seq LIMIT 1), 'an earlier run')
        WHEN r.status = 'queued' AND NOT EXISTS (SELECT FROM triggerkit.workers)
            THEN 'no worker is running; start one with: triggerkit worker'
        WHEN r.status = 'queued' THEN 'waiting for a free slot of a worker'
        WHEN r.status IN ('retrying', 'delayed')
            THEN 'to be tried at ' || to_char(r.scheduled_at, 'YYYY-MM-DD HH24:MI:SS "UTC"')
    END AS reason
FROM triggerkit.runs r
"""

#: Of the attempt that succeeded, or that is being made, the run's own row tells.
_ATTEMPTS = """
SELECT attempt, status, started_at, finished_at, worker, error
FROM triggerkit.attempts WHERE run_id = %s
UNION ALL
SELECT attempt, status, started_at, finished_at, worker, NULL
FROM triggerkit.runs WHERE id = %s AND status IN ('completed', 'executing')
ORDER BY attempt
"""


async def list_runs(
    connection: psycopg.AsyncConnection,
    *,
    task: str | None = None,
    status: str | None = None,
    limit: int = 20,
) -> list[dict[str, Any]]:
    """The latest runs, newest first, without payloads and outputs."""
    conditions: list[sql.Composable] = [sql.SQL("true")]
    parameters: list[Any] = []
    for column, value in (("task", task), ("status", status)):
        if value is not None:
            conditions.append(sql.SQL("r.{} = %s").format(sql.Identifier(column)))
            parameters.append(value)
    query = sql.SQL("{} WHERE {} ORDER BY r.seq DESC LIMIT {}").format(
        sql.SQL(_COLUMNS), sql.SQL(" AND ").join(conditions), sql.Literal(min(limit, MAX_LIMIT))
    )
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, parameters)
        rows = await cursor.fetchall()
    return [{k: v for k, v in row.items() if k not in ("payload", "output")} for row in rows]


async def show_run(connection: psycopg.AsyncConnection, run_id: str) -> dict[str, Any] | None:
    """One run whole, with its attempts; None when there is none of this id."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(sql.SQL(_COLUMNS + " WHERE r.id = %s"), [run_id])
        row = await cursor.fetchone()
        if row is None:
            return None
        await cursor.execute(_ATTEMPTS, [run_id, run_id])
        attempts = await cursor.fetchall()
    row["payload"] = orjson.loads(row["payload"])
    row["output"] = None if row["output"] is None else orjson.loads(row["output"])
    return {**row, "attempts": attempts}
