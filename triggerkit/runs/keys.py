"""Concurrency keys and gates: which of the waiting runs may start.

Per key, the first unfinished runs are not blocked: one, or as many as their task allows at a time.
A transaction that adds or ends a run of a key holds the key's lock until its transaction ends. Per
queue with a limit, as many runs are let through as there is room for: a transaction that lets runs
through holds the queue's row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from triggerkit.runs.run import ReadyRun
from triggerkit.state.turn import Statement

#: A task's name and one of its concurrency keys, None for a run that has none.
Key: TypeAlias = tuple[str, str | None]

#: Now, as a rank: microseconds since 1970.
NOW_RANK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

#: What a run `r` is that can be executed now; index runs_ready has the same.
READY = "r.status = 'queued' AND NOT r.blocked AND r.gate IS DISTINCT FROM 'held'"

#: The gate a run of queue `r.queue` waits at.
GATE = """
(SELECT 'held' FROM triggerkit.queues q WHERE q.name = r.queue AND (
    q.concurrency IS NOT NULL OR q.rate_limit IS NOT NULL OR q.paused_at IS NOT NULL))
"""

#: Whether a run's task has no open breaker, or the run is its probe.
NOT_WAITING = """
({run}.task <> ALL (ARRAY(SELECT task FROM triggerkit.breakers WHERE closed_at IS NULL))
    OR {run}.id = ANY (ARRAY(SELECT probe FROM triggerkit.breakers WHERE closed_at IS NULL)))
"""

#: Most keys of one task that a transaction locks one by one. The server keeps all locks in a table
#: of a fixed size, some thousands: with more keys a transaction takes the whole task's lock.
MOST_KEYS_LOCKED = 40

#: Takes the keys' locks, in one order everywhere: two transactions cannot wait in a ring. Who locks
#: single keys of a task shares the task's own lock, which whoever locks all of them has alone.
LOCK = """
SELECT CASE WHEN is_shared THEN pg_advisory_xact_lock_shared(number)::text
    ELSE pg_advisory_xact_lock(number)::text END
FROM (
    SELECT level, hashtextextended(name, 0) AS number, bool_and(is_shared) AS is_shared
    FROM unnest(%s::text[], %s::int[], %s::bool[]) AS l (name, level, is_shared)
    GROUP BY 1, 2 ORDER BY 1, 2
) AS locks
"""

#: Lets the first blocked runs of each key go on, as far as the key has room beside those that do
#: already: they execute, or wait for a retry. None passes one before it, whose limit may be another
#: one, as after a deploy. Those that go on are not always the first: what is accepted in a
#: transaction of the caller's comes in late. Most keys have none that is blocked, which is asked
#: first.
UNBLOCK = f"""
UPDATE triggerkit.runs r SET blocked = false, pending = false,
    gate = CASE WHEN r.status = 'queued' THEN coalesce(r.gate, {GATE}) ELSE r.gate END,
    rank = {NOW_RANK} - r.priority * 1000000::bigint + n.place
FROM unnest(ARRAY(
    SELECT w.id
    FROM unnest(%s::text[], %s::text[]) AS k (task, key),
    LATERAL (SELECT c.concurrency_per_key FROM triggerkit.runs c
        WHERE c.task = k.task AND c.concurrency_key = k.key AND c.finished_at IS NULL
            AND c.blocked
        ORDER BY c.seq LIMIT 1) AS first,
    LATERAL (SELECT count(*) AS going FROM triggerkit.runs o
        WHERE o.task = k.task AND o.concurrency_key = k.key AND o.finished_at IS NULL
            AND NOT o.blocked) AS g,
    LATERAL (SELECT b.id, b.seq, row_number() OVER in_order AS place,
            min(b.concurrency_per_key) OVER in_order AS least
        FROM (SELECT f.id, f.seq, f.concurrency_per_key FROM triggerkit.runs f
            WHERE f.task = k.task AND f.concurrency_key = k.key AND f.finished_at IS NULL
                AND f.blocked
            ORDER BY f.seq LIMIT greatest(0, first.concurrency_per_key - g.going)) AS b
        WINDOW in_order AS (ORDER BY b.seq)) AS w
    WHERE g.going + w.place <= w.least
    ORDER BY w.seq)) WITH ORDINALITY AS n (id, place)
WHERE r.id = n.id AND r.blocked
RETURNING r.task, r.id, r.rank, r.status = 'queued' AND r.gate IS DISTINCT FROM 'held', r.queue,
    r.gate
"""  # noqa: S608 - of constants

#: Most runs let through a queue's gate at once.
MOST_ADMITTED = 1000

#: Takes the queues' rows, in one order everywhere.
LOCK_QUEUES = """
SELECT name FROM triggerkit.queues WHERE name = ANY (%s) ORDER BY name FOR UPDATE
"""

#: Lets through what there is room for, first those that waited longest. Against the rate of its
#: queue counts what was let through and has not started, and what started less than a period ago:
#: so that none has more starts than its limit in any period.
ADMIT = f"""
WITH room AS (
    SELECT q.name, greatest(0, least(%s,
        CASE WHEN q.paused_at IS NOT NULL THEN 0 END,
        q.concurrency - (SELECT count(*) FROM triggerkit.runs o
                         WHERE o.queue = q.name AND o.gate = 'open')
            - (SELECT count(*) FROM triggerkit.runs o
               WHERE o.queue = q.name AND o.gate = 'back'),
        q.rate_limit - (SELECT count(*) FROM triggerkit.runs o
                        WHERE o.queue = q.name AND o.gate = 'open' AND o.status || '' = 'queued')
            - (SELECT count(*) FROM triggerkit.starts s WHERE s.queue = q.name
               AND s.at > statement_timestamp() - q.rate_period_s * interval '1 second'))) AS places
    FROM triggerkit.queues q WHERE q.name = ANY (%s)),
admitted AS (
    UPDATE triggerkit.runs r SET gate = 'open', rank = {NOW_RANK} - r.priority * 1000000::bigint
    WHERE r.id = ANY (ARRAY(
        SELECT w.id FROM room, LATERAL (
            SELECT h.id FROM triggerkit.runs h
            WHERE h.queue = room.name AND h.status = 'queued' AND NOT h.blocked AND h.gate = 'held'
                AND {NOT_WAITING.format(run="h")}
            ORDER BY h.rank LIMIT room.places) AS w))
    RETURNING r.task, r.id, r.rank)
SELECT task, id, rank FROM admitted
"""  # noqa: S608 - of constants


class Placed(NamedTuple):
    """A row of `UNBLOCK`, and of an `INSERT` of runs: a run, and whether it is to be pushed.

    With its gate `held` it waits until its queue has room.
    """

    task: str
    id: str
    rank: int
    is_ready: bool
    queue: str
    gate: str | None


def lock_parameters(keys: Iterable[Key]) -> list[list[Any]]:
    """Return the parameters of `LOCK`."""
    by_task: defaultdict[str, set[str]] = defaultdict(set)
    for task, key in keys:
        if key is not None:
            by_task[task].add(key)
    locks: list[tuple[str, int, bool]] = []
    for task, of_task in by_task.items():
        is_shared = len(of_task) <= MOST_KEYS_LOCKED
        locks.append((task, 0, is_shared))
        if is_shared:
            locks += [(f"{task}\x1f{key}", 1, False) for key in of_task]
    return [list(column) for column in zip(*locks, strict=True)] or [[], [], []]


def unblock_parameters(keys: Iterable[Key]) -> list[list[str]]:
    """Return the parameters of `UNBLOCK`."""
    with_key = sorted({(task, key) for task, key in keys if key is not None})
    return [[task for task, _ in with_key], [key for _, key in with_key]]


def admit_statements(queues: Iterable[str]) -> list[Statement]:
    """Let through what `queues` have room for; the last statement's rows are to be pushed."""
    names = sorted(queues)
    return [(LOCK_QUEUES, [names]), (ADMIT, [MOST_ADMITTED, names])]


def admitted(rows: Sequence[tuple[Any, ...]]) -> list[ReadyRun]:
    """Return what of `ADMIT`'s rows is to be pushed: all."""
    return [ReadyRun(*row) for row in rows]
