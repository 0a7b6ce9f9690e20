"""Accepting runs: durable in Postgres before the answer, pushed to Redis after it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import orjson
import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from triggerkit.errors import NotDurable
from triggerkit.runs.queue import RunQueue
from triggerkit.runs.run import Handle, NewRun

#: Serialises arrivals and completions of one concurrency key, so that exactly one of its
#: unfinished runs is not blocked. Taken in order, so that two transactions cannot wait in a ring.
LOCK_KEYS = """
SELECT pg_advisory_xact_lock(hashtextextended(k, 0))
FROM (SELECT DISTINCT unnest(%s::text[]) AS k ORDER BY 1) keys
"""

#: A run is blocked behind an unfinished run of its key, here or earlier in the same statement.
INSERT = """
INSERT INTO triggerkit.runs (id, task, queue, status, max_attempts, attempt, payload, items,
    idempotency_key, concurrency_key, item_key, source, error, scheduled_at, finished_at, blocked)
SELECT n.id, n.task, n.queue, n.status, n.max_attempts, n.attempt, n.payload, n.items,
    n.idempotency_key, n.concurrency_key, n.item_key, n.source::jsonb, n.error::jsonb,
    CASE WHEN n.delay_s > 0 THEN clock_timestamp() + n.delay_s * interval '1 second' END,
    CASE WHEN n.status = 'failed' THEN clock_timestamp() END,
    n.concurrency_key IS NOT NULL AND n.status <> 'failed' AND (
        row_number() OVER (PARTITION BY n.task, n.concurrency_key ORDER BY n.ord) > 1
        OR EXISTS (SELECT FROM triggerkit.runs r WHERE r.task = n.task
                   AND r.concurrency_key = n.concurrency_key AND r.finished_at IS NULL))
FROM ROWS FROM (
    unnest(%(id)s::text[]), unnest(%(task)s::text[]), unnest(%(queue)s::text[]),
    unnest(%(max_attempts)s::int[]), unnest(%(attempt)s::int[]), unnest(%(payload)s::text[]),
    unnest(%(items)s::int[]), unnest(%(idempotency_key)s::text[]),
    unnest(%(concurrency_key)s::text[]), unnest(%(item_key)s::text[]),
    unnest(%(source)s::text[]), unnest(%(error)s::text[]), unnest(%(delay_s)s::float[]),
    unnest(%(status)s::text[]))
    WITH ORDINALITY AS n (id, task, queue, max_attempts, attempt, payload, items,
        idempotency_key, concurrency_key, item_key, source, error, delay_s, status, ord)
ORDER BY n.ord
ON CONFLICT (task, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id, queue, status = 'queued' AND NOT blocked
"""

_FIRST = """
SELECT r.task, r.idempotency_key, r.id FROM triggerkit.runs r
JOIN unnest(%s::text[], %s::text[]) AS k (task, idempotency_key) USING (task, idempotency_key)
"""


def insert_parameters(runs: Sequence[NewRun]) -> dict[str, list[object]]:
    """The parameters of `INSERT`: a column of values per name."""
    return {
        "id": [r.id for r in runs],
        "task": [r.task for r in runs],
        "queue": [r.queue for r in runs],
        "max_attempts": [r.max_attempts for r in runs],
        "attempt": [r.attempt for r in runs],
        "payload": [r.payload.decode() for r in runs],
        "items": [r.items for r in runs],
        "idempotency_key": [r.idempotency_key for r in runs],
        "concurrency_key": [r.concurrency_key for r in runs],
        "item_key": [r.item_key for r in runs],
        "source": [_json(r.source) for r in runs],
        "error": [_json(None if r.error is None else r.error.as_json()) for r in runs],
        "delay_s": [r.delay_s for r in runs],
        "status": [r.status for r in runs],
    }


def _json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def lock_names(runs: Sequence[tuple[str, str | None]]) -> list[str]:
    """The lock of each (task, concurrency key) that has a key."""
    return sorted({f"{task}\x1f{key}" for task, key in runs if key is not None})


class Acceptor:
    """Accepts runs. Accepted means durable: Redis may be away, Postgres may not."""

    def __init__(self, pool: AsyncConnectionPool, queue: RunQueue) -> None:
        self._pool = pool
        self._queue = queue

    async def accept(self, runs: Sequence[NewRun]) -> list[Handle]:
        """Make `runs` durable, push those that can run, and return a handle for each, in order.

        A run whose idempotency key its task has seen before is not made again: its handle is the
        first one's.

        Raises:
            NotDurable: Postgres is away; nothing was accepted.
        """
        try:
            async with self._pool.connection() as connection:
                inserted = await self._insert(connection, runs)
                first = await self._first(connection, runs, inserted.keys())
        except (psycopg.OperationalError, PoolTimeout) as error:
            raise NotDurable from error
        runnable = [(r.queue, r.id) for r in runs if inserted.get(r.id)]
        await self._queue.push(runnable)
        return [
            Handle(r.id, r.task)
            if r.id in inserted
            else Handle(first[r.task, r.idempotency_key or ""], r.task, duplicate=True)
            for r in runs
        ]

    @staticmethod
    async def _insert(
        connection: psycopg.AsyncConnection, runs: Sequence[NewRun]
    ) -> dict[str, bool]:
        locks = lock_names([(r.task, r.concurrency_key) for r in runs])
        if not locks:
            cursor = await connection.execute(INSERT, insert_parameters(runs))
            return {run_id: runnable for run_id, _, runnable in await cursor.fetchall()}
        async with connection.transaction(), connection.pipeline():
            await connection.execute(LOCK_KEYS, [locks])
            cursor = await connection.execute(INSERT, insert_parameters(runs))
            return {run_id: runnable for run_id, _, runnable in await cursor.fetchall()}

    @staticmethod
    async def _first(
        connection: psycopg.AsyncConnection, runs: Sequence[NewRun], inserted: Collection[str]
    ) -> dict[tuple[str, str], str]:
        missing = [r for r in runs if r.id not in inserted]
        if not missing:
            return {}
        cursor = await connection.execute(
            _FIRST, [[r.task for r in missing], [r.idempotency_key for r in missing]]
        )
        return {(task, key): run_id for task, key, run_id in await cursor.fetchall()}
