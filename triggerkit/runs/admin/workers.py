"""Looking at the processes that execute runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic

from psycopg_pool import AsyncConnectionPool

from triggerkit.state.reading import Reads, rows_of

#: Seconds between two looks at the heartbeats.
LOOK_S = 0.25

_LIST = """
SELECT w.id, w.hostname, w.pid, w.queues, w.tasks, w.version, w.slots, w.async_slots,
    (SELECT count(*)::int FROM triggerkit.runs r
     WHERE r.status = 'executing' AND r.worker = w.id) AS executing,
    w.started_at, NULL::boolean AS alive
FROM triggerkit.workers w ORDER BY w.started_at, w.id
"""

_HEARTBEATS = "SELECT id, beat FROM triggerkit.workers"


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A process that executes runs: of which tasks, and how many at once. `alive` says whether its
    heartbeat was raised while it was watched; None if it was not watched for long enough."""

    id: str
    hostname: str
    pid: int
    queues: list[str]
    tasks: list[str]
    version: str | None
    slots: int
    async_slots: int
    executing: int
    started_at: datetime
    alive: bool | None


async def list_workers(states: AsyncConnectionPool, watch_s: float = 2.5) -> list[WorkerInfo]:
    """Return the processes that have a lease, watched until each has raised its heartbeat, at most
    `watch_s`.

    A heartbeat comes each second. No wall clock decides who is alive: one that is silent loses its
    lease after 8 seconds.
    """
    before = await _heartbeats(states) if watch_s > 0 else {}
    started = monotonic()
    silent = set(before)
    while silent and (left_s := started + watch_s - monotonic()) > 0:
        await asyncio.sleep(min(LOOK_S, left_s))
        now = await _heartbeats(states)
        silent = {worker for worker in silent if now.get(worker) == before[worker]}
    async with states.connection() as connection:
        found = await known_workers(connection)
    enough = watch_s >= 2.0
    return [
        replace(worker, alive=_alive(worker.id in before, worker.id in silent, enough))
        for worker in found
    ]


async def known_workers(connection: Reads) -> list[WorkerInfo]:
    """Return the processes that have a lease, without a look at their heartbeats."""
    return await rows_of(connection, _LIST, into=WorkerInfo)


def _alive(was_there: bool, is_silent: bool, enough: bool) -> bool | None:
    if not is_silent:
        return True if was_there else None
    return False if enough else None


async def _heartbeats(states: AsyncConnectionPool) -> Mapping[str, int]:
    async with states.connection() as connection:
        return dict(await (await connection.execute(_HEARTBEATS)).fetchall())
