"""Accepting runs: durable in Postgres before the answer, pushed to Redis after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import psycopg
from psycopg_pool import AsyncConnectionPool

from triggerkit.errors import FieldProblem, InvalidPayload, NotDurable
from triggerkit.failpoints import reach
from triggerkit.runs.keys import LOCK, UNBLOCK, lock_parameters, runnable, unblock_parameters
from triggerkit.runs.queue import RunQueue
from triggerkit.runs.run import Handle, NewRun
from triggerkit.state.turn import in_one_turn_async

#: Seconds to wait for a connection of the pool; then the sender is told to come again.
POOL_TIMEOUT_S = 5.0

#: A run is blocked behind an unfinished run of its key, here or earlier in the same statement.
INSERT = """
INSERT INTO triggerkit.runs (id, task, queue, status, max_attempts, attempt, payload, items,
    idempotency_key, concurrency_key, item_key, source, error, scheduled_at, finished_at, blocked)
SELECT n.id, n.task, n.queue, n.status, n.max_attempts, n.attempt, n.payload, n.items,
    n.idempotency_key, n.concurrency_key, n.item_key, n.source::jsonb, n.error::jsonb,
    CASE WHEN n.delay_s > 0 THEN clock_timestamp() + n.delay_s * interval '1 second' END,
    CASE WHEN n.status = 'failed' THEN clock_timestamp() END,
    n.concurrency_key IS NOT NULL AND n.status <> 'failed' AND (
        row_number() OVER (
            PARTITION BY n.task, n.concurrency_key, n.status = 'failed' ORDER BY n.ord) > 1
        OR (SELECT true FROM triggerkit.runs r WHERE r.task = n.task
            AND r.concurrency_key = n.concurrency_key AND r.finished_at IS NULL LIMIT 1) IS TRUE)
FROM ROWS FROM (
    unnest(%(id)s::text[]), unnest(%(task)s::text[]), unnest(%(queue)s::text[]),
    unnest(%(max_attempts)s::int[]), unnest(%(attempt)s::int[]), unnest(%(payload)b::text[]),
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
        "delay_s": [float(r.delay_s) for r in runs],
        "status": [r.status for r in runs],
    }


def _json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


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
            InvalidPayload: Postgres cannot store a text of it; nothing was accepted.
        """
        try:
            async with self._pool.connection(timeout=POOL_TIMEOUT_S) as connection:
                inserted, ready = await self._insert(connection, runs)
                first = await self._first(connection, [r for r in runs if r.id not in inserted])
        except psycopg.OperationalError as error:
            # The pool's other connections are probably broken too: this answer is enough.
            await self._pool.check()
            raise NotDurable from error
        except psycopg.DataError:
            raise InvalidPayload([FieldProblem((), "has a text that cannot be stored")]) from None
        reach("run-inserted")
        await self._queue.push(ready)
        reach("run-pushed")
        return [
            Handle(r.id, r.task)
            if r.id in inserted
            else Handle(first[r.task, r.idempotency_key], r.task, duplicate=True)
            for r in runs
        ]

    @staticmethod
    async def _insert(
        connection: psycopg.AsyncConnection, runs: Sequence[NewRun]
    ) -> tuple[set[str], list[tuple[str, str]]]:
        """The ids of the runs that were made, and (queue, run id) of runs that can run now."""
        keys = [(run.task, run.concurrency_key) for run in runs]
        # Of several runs one may be counted as standing before others of its key, and not be made.
        held_up = keys if len(runs) > 1 else []
        _, inserted, unblocked = await in_one_turn_async(
            connection,
            [
                (LOCK, lock_parameters(keys)),
                (INSERT, insert_parameters(runs)),
                (UNBLOCK, unblock_parameters(held_up)),
            ],
        )
        ready = [(queue, run_id) for run_id, queue, can_run in inserted if can_run]
        return {run_id for run_id, _, _ in inserted}, ready + runnable(unblocked)

    @staticmethod
    async def _first(
        connection: psycopg.AsyncConnection, repeated: Sequence[NewRun]
    ) -> dict[tuple[str, str | None], str]:
        if not repeated:
            return {}
        cursor = await connection.execute(
            _FIRST, [[r.task for r in repeated], [r.idempotency_key for r in repeated]]
        )
        return {(task, key): run_id for task, key, run_id in await cursor.fetchall()}
