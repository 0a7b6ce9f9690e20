"""Queues: how full they are, pausing and resuming them, and their limits.

A queue needs a row only for a limit or a pause. Runs of such a queue wait at its gate: when a queue
gets its first limit or is paused, those that are ready already are taken back behind it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from triggerkit.errors import DeclaredElsewhere, TriggerkitError, UnknownQueue, unknown_name
from triggerkit.runs.accept.insert import admit_on
from triggerkit.runs.admin.unfinished import count_unfinished
from triggerkit.runs.client import Client
from triggerkit.runs.keys import READY
from triggerkit.runs.run import ReadyRun
from triggerkit.state.audit import note
from triggerkit.state.reading import Reads, rows_of

#: Most runs changed by one statement.
CHUNK = 10_000

_LIMITED = """
SELECT name, paused_at, concurrency, rate_limit, rate_period_s FROM triggerkit.queues
"""

_SERVED = "SELECT q, count(*)::int FROM triggerkit.workers, unnest(queues) q GROUP BY 1"

_PAUSE = """
INSERT INTO triggerkit.queues (name, paused_at) VALUES (%s, clock_timestamp())
ON CONFLICT (name) DO UPDATE SET paused_at = coalesce(queues.paused_at, excluded.paused_at)
"""

_RESUME = """
UPDATE triggerkit.queues SET paused_at = NULL WHERE name = %s AND paused_at IS NOT NULL
RETURNING concurrency IS NOT NULL OR rate_limit IS NOT NULL
"""

_LIMIT = """
INSERT INTO triggerkit.queues (name, concurrency, rate_limit, rate_period_s)
VALUES (%(name)s, %(concurrency)s, %(rate_limit)s, %(rate_period_s)s)
ON CONFLICT (name) DO UPDATE SET concurrency = excluded.concurrency,
    rate_limit = excluded.rate_limit, rate_period_s = excluded.rate_period_s
WHERE queues.managed_by = 'api'
RETURNING concurrency IS NOT NULL OR rate_limit IS NOT NULL, paused_at IS NOT NULL
"""

#: Those that execute take up room from now on, but for those that end at this moment.
_OPEN = """
UPDATE triggerkit.runs SET gate = 'open' WHERE id = ANY (ARRAY(
    SELECT id FROM triggerkit.runs
    WHERE status = 'executing' AND queue = %s AND gate IS NULL FOR UPDATE SKIP LOCKED))
"""

#: The tasks that have ready runs, by steps through the index, however many wait of each.
_READY_TASKS = f"""
WITH RECURSIVE waiting AS (
    (SELECT r.task FROM triggerkit.runs r WHERE {READY} ORDER BY r.task, r.rank LIMIT 1)
    UNION ALL
    SELECT next.task FROM waiting, LATERAL (
        SELECT r.task FROM triggerkit.runs r WHERE {READY} AND r.task > waiting.task
        ORDER BY r.task, r.rank LIMIT 1) AS next)
SELECT task FROM waiting
"""  # noqa: S608 - of constants

#: What is being claimed at this moment is left to the claim, which refuses what is paused.
_HOLD = f"""
UPDATE triggerkit.runs SET gate = 'held' WHERE id = ANY (ARRAY(
    SELECT r.id FROM triggerkit.runs r
    WHERE r.task = %s AND {READY} AND r.queue = %s AND r.gate IS NULL
    ORDER BY r.rank LIMIT %s FOR UPDATE SKIP LOCKED))
"""  # noqa: S608 - of constants

_RELEASE = """
UPDATE triggerkit.runs SET gate = NULL WHERE id = ANY (ARRAY(
    SELECT id FROM triggerkit.runs
    WHERE queue = %s AND status = 'queued' AND NOT blocked AND gate = 'held'
    ORDER BY rank LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING task, id, rank
"""


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A queue that has runs, workers, limits or a pause.

    `queued` may run at once, `held` wait for the queue's limit or its resume; each is counted up to
    100,000. `workers` is the number of processes that take runs of it. At most `rate_limit` runs
    start in any `rate_period_s` seconds.
    """

    name: str
    paused_at: datetime | None = None
    concurrency: int | None = None
    rate_limit: int | None = None
    rate_period_s: float | None = None
    queued: int = 0
    held: int = 0
    delayed: int = 0
    retrying: int = 0
    executing: int = 0
    workers: int = 0


async def list_queues(connection: Reads) -> list[QueueInfo]:
    """Return the queues, by name."""
    limited, served, unfinished = await asyncio.gather(
        rows_of(connection, _LIMITED, into=dict[str, Any]),
        rows_of(connection, _SERVED),
        count_unfinished(connection, "queue"),
    )
    found: dict[str, dict[str, Any]] = {queue["name"]: queue for queue in limited}
    for name, workers in served:
        found.setdefault(name, {"name": name})["workers"] = workers
    for (name, status), count in unfinished.items():
        found.setdefault(name, {"name": name})[status] = count
    return [QueueInfo(**found[name]) for name in sorted(found)]


async def find_queue(connection: psycopg.AsyncConnection, name: str) -> QueueInfo:
    """Return one queue.

    Raises:
        UnknownQueue: nothing is known of it; the message names those that are.
    """
    found = {queue.name: queue for queue in await list_queues(connection)}
    if name not in found:
        raise UnknownQueue(unknown_name("queue", name, found))
    return found[name]


async def pause_queue(client: Client, name: str, actor: str) -> QueueInfo:
    """Start no more runs of a queue, also of one that has none yet; those that execute go on."""
    async with client.pool.connection() as connection:
        await connection.execute(_PAUSE, [name])
        await note(connection, actor, "pause queue", f"queue {name}")
        await _hold(connection, name)
        return await find_queue(connection, name)


async def resume_queue(client: Client, name: str, actor: str) -> QueueInfo:
    """Start runs of a paused queue again, as far as its limits let them.

    Raises:
        UnknownQueue, TriggerkitError: there is none, or it is not paused.
    """
    async with client.pool.connection() as connection:
        row = await (await connection.execute(_RESUME, [name])).fetchone()
        if row is None:
            await find_queue(connection, name)
            raise TriggerkitError(
                f"the queue {name} is not paused; those that are: triggerkit queues list"
            )
        await note(connection, actor, "resume queue", f"queue {name}")
        await _let_through(client, connection, name, has_limits=row[0])
        return await find_queue(connection, name)


async def limit_queue(
    client: Client,
    name: str,
    actor: str,
    *,
    concurrency: int | None,
    rate: tuple[int, float] | None,
) -> QueueInfo:
    """Set both limits of a queue; None is no limit. `rate` is runs and seconds.

    Raises:
        DeclaredElsewhere: tasks declare them.
    """
    rate_limit, rate_period_s = (None, None) if rate is None else rate
    limits = {
        "concurrency": concurrency,
        "rate_limit": rate_limit,
        "rate_period_s": rate_period_s,
    }
    async with client.pool.connection() as connection:
        row = await (await connection.execute(_LIMIT, {"name": name, **limits})).fetchone()
        if row is None:
            raise DeclaredElsewhere(
                f"the limits of the queue {name} are declared in code, by Queue({name!r}, …); "
                "change them there and run: triggerkit apply"
            )
        has_limits, is_paused = row
        await note(connection, actor, "limit queue", f"queue {name}", limits)
        if has_limits:
            await connection.execute(_OPEN, [name])
            await _hold(connection, name)
        if not is_paused:
            await _let_through(client, connection, name, has_limits=has_limits)
        return await find_queue(connection, name)


async def _hold(connection: psycopg.AsyncConnection, name: str) -> None:
    tasks = await (await connection.execute(_READY_TASKS)).fetchall()
    for (task,) in tasks:
        while (await connection.execute(_HOLD, [task, name, CHUNK])).rowcount == CHUNK:
            pass


async def _let_through(
    client: Client, connection: psycopg.AsyncConnection, name: str, *, has_limits: bool
) -> None:
    if has_limits:
        # The keeper lets the others through, as there is room for them.
        await client.transport.push(await admit_on(connection, [name]))
        return
    while released := await (await connection.execute(_RELEASE, [name, CHUNK])).fetchall():
        await client.transport.push([ReadyRun(*row) for row in released])
