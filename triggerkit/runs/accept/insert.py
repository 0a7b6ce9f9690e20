"""The statements that make runs, and what comes of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import Any

import orjson
import psycopg

from triggerkit.runs.keys import (
    GATE,
    NOW_RANK,
    READY,
    Placed,
    admit_statements,
    admitted,
)
from triggerkit.runs.run import NewRun, ReadyRun, RunOptions
from triggerkit.state.turn import Rows, in_one_turn_async

#: Most runs that one transaction accepts: one round trip for each thousand.
CHUNK = 1000

#: A run is blocked behind as many unfinished runs of its key as may go on at once, here or earlier
#: in the same statement, and behind one that is blocked itself. One that is to be canceled with its
#: parent, whose cancel was requested before, is canceled at once.
INSERT = f"""
INSERT INTO triggerkit.runs (id, task, queue, status, max_attempts, attempt, payload, items,
    idempotency_key, concurrency_key, item_key, source, error, scheduled_at, finished_at, blocked,
    pending, gate, priority, rank, expires_at, idempotency_expires_at, debounce_key, tags, metadata,
    parent_id, traceparent, replay_of, awaited, full_keys, cancel_with_parent,
    concurrency_per_key)
SELECT r.id, r.task, r.queue, s.status, r.max_attempts, r.attempt, r.payload, r.items,
    r.idempotency_key, r.concurrency_key, r.item_key, r.source::jsonb, r.error::jsonb,
    CASE WHEN r.delay_s > 0 THEN clock_timestamp() + r.delay_s * interval '1 second' END,
    CASE WHEN s.ended THEN clock_timestamp() END,
    r.concurrency_key IS NOT NULL AND NOT s.ended AND (%(pending)s OR
        row_number() OVER (PARTITION BY r.task, r.concurrency_key, s.ended ORDER BY r.ord)
            + (SELECT count(*) FROM (SELECT FROM triggerkit.runs e WHERE e.task = r.task
                AND e.concurrency_key = r.concurrency_key AND e.finished_at IS NULL
                LIMIT c.per_key) AS before) > c.per_key
        OR c.per_key > 1 AND EXISTS (SELECT FROM triggerkit.runs e WHERE e.task = r.task
            AND e.concurrency_key = r.concurrency_key AND e.finished_at IS NULL AND e.blocked)),
    r.concurrency_key IS NOT NULL AND %(pending)s AND NOT s.ended,
    CASE WHEN s.status = 'queued' THEN {GATE} END,
    coalesce(o.priority_s, 0), {NOW_RANK} - coalesce(o.priority_s, 0) * 1000000::bigint + r.ord,
    clock_timestamp() + (greatest(r.delay_s, 0) + o.ttl_s) * interval '1 second',
    clock_timestamp() + o.idempotency_ttl_s * interval '1 second',
    o.debounce_key, coalesce(o.tags, '{{}}'), coalesce(o.metadata, '{{}}'), o.parent_id,
    o.traceparent, o.replay_of, coalesce(o.awaited, false), o.full_keys,
    coalesce(o.cancel_with_parent, false), c.per_key
FROM ROWS FROM (
    unnest(%(id)s::text[]), unnest(%(task)s::text[]), unnest(%(queue)s::text[]),
    unnest(%(max_attempts)s::int[]), unnest(%(attempt)s::int[]), unnest(%(payload)b::text[]),
    unnest(%(items)s::int[]), unnest(%(idempotency_key)s::text[]),
    unnest(%(concurrency_key)s::text[]), unnest(%(item_key)s::text[]),
    unnest(%(source)s::text[]), unnest(%(error)s::text[]), unnest(%(delay_s)s::float[]),
    unnest(%(status)s::text[]), unnest(%(options)s::text[]))
    WITH ORDINALITY AS r (id, task, queue, max_attempts, attempt, payload, items,
        idempotency_key, concurrency_key, item_key, source, error, delay_s, status, options, ord)
LEFT JOIN LATERAL jsonb_to_record(r.options::jsonb) AS o (priority_s int, ttl_s float,
    idempotency_ttl_s float, debounce_key text, tags text[], metadata jsonb, parent_id text,
    traceparent text, replay_of text, awaited boolean, full_keys jsonb,
    cancel_with_parent boolean, concurrency_per_key int) ON r.options IS NOT NULL
CROSS JOIN LATERAL (SELECT o.cancel_with_parent IS TRUE AND EXISTS (
    SELECT FROM triggerkit.runs p WHERE p.id = o.parent_id AND p.cancel_requested_at IS NOT NULL
) AS canceled, coalesce(o.concurrency_per_key, 1) AS per_key) AS c
CROSS JOIN LATERAL (SELECT CASE WHEN c.canceled THEN 'canceled' ELSE r.status END AS status,
    c.canceled OR r.status = 'failed' AS ended) AS s
ORDER BY r.ord
"""  # noqa: S608 - of constants

#: As `Placed` reads it.
_RETURNING = """
RETURNING task, id, rank, status = 'queued' AND NOT blocked AND gate IS DISTINCT FROM 'held', queue,
    gate
"""

#: What was made of runs with these ids, as `INSERT_ONCE` returns it.
MADE = f"""
SELECT r.task, r.id, r.rank, {READY}, r.queue, r.gate FROM triggerkit.runs r WHERE r.id = ANY (%s)
"""  # noqa: S608 - of constants

#: A run whose idempotency key its task knows is not made again.
INSERT_ONCE = f"""{INSERT}
ON CONFLICT (task, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
{_RETURNING}"""

#: When a delayed run is due that is triggered again.
_DEBOUNCED_AT = """
least(excluded.scheduled_at, runs.created_at + %(debounce_max_s)s::float * interval '1 second')
"""

#: A delayed run of the debounce key waits anew.
INSERT_DEBOUNCED_FIRST = f"""{INSERT}
ON CONFLICT (task, debounce_key) WHERE debounce_key IS NOT NULL AND status = 'delayed'
DO UPDATE SET scheduled_at = {_DEBOUNCED_AT},
    expires_at = {_DEBOUNCED_AT} + (excluded.expires_at - excluded.scheduled_at)
{_RETURNING}"""

#: A delayed run of the debounce key waits anew and takes the new payload.
INSERT_DEBOUNCED = INSERT_DEBOUNCED_FIRST.replace(
    "DO UPDATE SET ",
    """DO UPDATE SET payload = excluded.payload, tags = excluded.tags,
    metadata = excluded.metadata, priority = excluded.priority, """,
)

#: The runs that hold the idempotency keys, and whether each key's time is over.
FIRST = """
SELECT r.task, r.idempotency_key, r.id,
    coalesce(r.idempotency_expires_at < clock_timestamp(), false)
FROM triggerkit.runs r
JOIN unnest(%s::text[], %s::text[]) AS k (task, idempotency_key) USING (task, idempotency_key)
"""

#: Lets a key be used again.
FREE_KEYS = """
UPDATE triggerkit.runs SET idempotency_key = NULL WHERE id = ANY (%s) AND idempotency_key = ANY (%s)
"""

#: Lets a key of a task be used again, whatever became of its run.
FORGET_KEY = """
UPDATE triggerkit.runs SET idempotency_key = NULL WHERE task = %s AND idempotency_key = %s
"""


def insert_parameters(runs: Sequence[NewRun], *, pending: bool = False) -> dict[str, Any]:
    """Return the parameters of `INSERT`: a column of values per name. Runs with a key are `pending`
    where the key is not locked."""
    return {
        "pending": pending,
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
        "options": [_options(r) for r in runs],
    }


def insert_statement(
    runs: Sequence[NewRun], *, pending: bool = False
) -> tuple[str, dict[str, Any]]:
    """Return the statement that makes `runs`, and its parameters. A debounced run stands alone."""
    options = runs[0].options
    parameters = insert_parameters(runs, pending=pending)
    if options is None or options.debounce_key is None:
        return INSERT_ONCE, parameters
    statement = INSERT_DEBOUNCED_FIRST if options.debounce_keeps_first else INSERT_DEBOUNCED
    return statement, {**parameters, "debounce_max_s": options.debounce_max_s}


@dataclass(slots=True)
class Inserted:
    """The result of a statement that makes runs: their ids, those to push, and gates to look at."""

    ids: list[str] = field(default_factory=list)
    ready: list[ReadyRun] = field(default_factory=list)
    gates: set[str] = field(default_factory=set)

    def add(self, made: Rows, unblocked: Sequence[tuple[Any, ...]] = ()) -> None:
        """Take in rows of `INSERT…RETURNING`, and of `UNBLOCK`."""
        placed = [Placed._make(row) for row in (*made, *unblocked)]
        self.ids += [run.id for run in placed[: len(made)]]
        self.ready += [ReadyRun(run.task, run.id, run.rank) for run in placed if run.is_ready]
        self.gates |= {run.queue for run in placed if run.gate == "held"}


async def admit_on(connection: psycopg.AsyncConnection, queues: Iterable[str]) -> list[ReadyRun]:
    """Let through the gates of `queues` what there is room for; it is to be pushed."""
    _, rows = await in_one_turn_async(connection, admit_statements(queues))
    return admitted(rows)


def _options(run: NewRun) -> str | None:
    if run.options is None and run.full_keys is None:
        return None
    values = _option_values(run.options or _NO_OPTIONS)
    if run.full_keys is None and run.options is not None and run.options.metadata is None:
        # Those of a task's runs are mostly the same.
        return _options_as_json(values)
    return _as_json(values, run.full_keys)


_NO_OPTIONS = RunOptions()

_option_values = attrgetter(*RunOptions.__slots__)


def _as_json(values: tuple[Any, ...], full_keys: dict[str, str] | None = None) -> str:
    # Postgres reads an array from JSON, and the bound of a debounce is a parameter of its own.
    given = {**dict(zip(RunOptions.__slots__, values, strict=True)), "full_keys": full_keys}
    return orjson.dumps({k: v for k, v in given.items() if v is not None}).decode()


# Typed: 1 and 1.0 and true are written differently.
_options_as_json = lru_cache(maxsize=64, typed=True)(_as_json)


def _json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else orjson.dumps(value).decode()
