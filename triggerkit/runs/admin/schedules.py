"""Schedules as people and clients look at them, pause, run, make and delete them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row

from triggerkit.errors import (
    DeclaredElsewhere,
    TriggerkitError,
    UnknownSchedule,
    unknown_name,
)
from triggerkit.runs.client import Client
from triggerkit.runs.run import RunRef, new_run_id
from triggerkit.runs.schedules import Cron, run_beside
from triggerkit.state.audit import note
from triggerkit.state.channels import KEEPER

_LIST = """
SELECT name, task, queue, cron, timezone, catch_up, paused_at, next_at, last_at, last_run,
    managed_by, deduplication_key, external_id
FROM triggerkit.schedules ORDER BY name
"""

_PAUSE = """
UPDATE triggerkit.schedules SET paused_at = coalesce(paused_at, clock_timestamp()) WHERE name = %s
"""

#: The row is held, so that nobody makes a tick's run while it is moved on.
_HOLD = "SELECT clock_timestamp() FROM triggerkit.schedules WHERE name = %s FOR UPDATE"

_RESUME = "UPDATE triggerkit.schedules SET paused_at = NULL, next_at = %s WHERE name = %s"

_MAKE = """
INSERT INTO triggerkit.schedules (name, task, queue, max_attempts, cron, timezone, ttl_s, priority,
    external_id, deduplication_key, next_at, managed_by)
VALUES (%(name)s, %(task)s, %(queue)s, %(max_attempts)s, %(cron)s, %(timezone)s, %(ttl_s)s,
    %(priority)s, %(external_id)s, %(key)s, %(next_at)s, 'api')
ON CONFLICT (deduplication_key) DO UPDATE SET task = excluded.task, queue = excluded.queue,
    max_attempts = excluded.max_attempts, cron = excluded.cron, timezone = excluded.timezone,
    ttl_s = excluded.ttl_s, priority = excluded.priority, external_id = excluded.external_id,
    next_at = CASE WHEN (schedules.cron, schedules.timezone) = (excluded.cron, excluded.timezone)
        THEN schedules.next_at ELSE excluded.next_at END
RETURNING name
"""

_CHANGE = """
UPDATE triggerkit.schedules SET task = %(task)s, queue = %(queue)s,
    max_attempts = %(max_attempts)s, cron = %(cron)s, timezone = %(timezone)s, ttl_s = %(ttl_s)s,
    priority = %(priority)s, external_id = %(external_id)s, next_at = %(next_at)s
WHERE name = %(name)s AND managed_by = 'api'
"""

_DELETE = "DELETE FROM triggerkit.schedules WHERE name = %s AND managed_by = 'api'"

_WAKE = f"SELECT pg_notify('{KEEPER}', '')"


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """A stored schedule of a task. `next_at` is the tick to come, `last_run` the run of the
    last. One that is `managed_by` the API was made by a client."""

    name: str
    task: str
    queue: str
    cron: str
    timezone: str
    catch_up: bool
    paused_at: datetime | None
    next_at: datetime
    last_at: datetime | None
    last_run: str | None
    managed_by: Literal["code", "api"] = "code"
    deduplication_key: str | None = None
    external_id: str | None = None


async def list_schedules(connection: psycopg.AsyncConnection) -> list[ScheduleInfo]:
    """Return the schedules, by name."""
    async with connection.cursor(row_factory=class_row(ScheduleInfo)) as cursor:
        return await (await cursor.execute(_LIST)).fetchall()


async def find_schedule(connection: psycopg.AsyncConnection, name: str) -> ScheduleInfo:
    """Return one schedule.

    Raises:
        UnknownSchedule: there is none of this name; the message names those that there are.
    """
    found = {schedule.name: schedule for schedule in await list_schedules(connection)}
    if name not in found:
        raise UnknownSchedule(unknown_name("schedule", name, found))
    return found[name]


async def pause_schedule(client: Client, name: str, actor: str) -> ScheduleInfo:
    """Make no more runs by the clock.

    Raises:
        UnknownSchedule: there is no such schedule.
    """
    async with client.pool.connection() as connection:
        await find_schedule(connection, name)
        await connection.execute(_PAUSE, [name])
        await note(connection, actor, "pause schedule", f"schedule {name}")
        return await find_schedule(connection, name)


async def resume_schedule(client: Client, name: str, actor: str) -> ScheduleInfo:
    """Make runs by the clock again: from the next tick on, or, of one that catches up, from the
    first that it missed.

    Raises:
        UnknownSchedule: there is no such schedule, or it is not paused.
    """
    async with client.pool.connection() as connection:
        async with connection.transaction():
            row = await (await connection.execute(_HOLD, [name])).fetchone()
            schedule = await find_schedule(connection, name)
            if schedule.paused_at is None or row is None:
                raise TriggerkitError(
                    f"the schedule {name} is not paused; those that are: triggerkit schedules list"
                )
            next_at = schedule.next_at
            if not schedule.catch_up:
                next_at = next(Cron(schedule.cron, schedule.timezone).after(row[0]))
            await connection.execute(_RESUME, [next_at, name])
            await note(connection, actor, "resume schedule", f"schedule {name}")
        return await find_schedule(connection, name)


async def run_schedule(client: Client, name: str, actor: str, once: str | None = None) -> RunRef:
    """Make a run of a schedule now, beside its ticks; also of one that is paused. What is asked for
    `once` makes one run, however often it is asked.

    Raises:
        UnknownSchedule: there is no such schedule.
    """
    async with client.pool.connection() as connection:
        run = await run_beside(connection, name)
        if run is None:
            await find_schedule(connection, name)
            raise UnknownSchedule(f"the schedule {name} has just been removed")
    [handle] = await client.accept([run if once is None else replace(run, idempotency_key=once)])
    if not handle.duplicate:
        async with client.pool.connection() as connection:
            await note(connection, actor, "run schedule", f"schedule {name}", {"run": handle.id})
    return handle


@dataclass(frozen=True, slots=True)
class MadeSchedule:
    """A schedule of a task, what its runs are made with, and whom it is for."""

    task: str
    queue: str
    max_attempts: int
    cron: str
    timezone: str
    ttl_s: float | None = None
    priority: int = 0
    external_id: str | None = None


async def make_schedule(
    client: Client, made: MadeSchedule, key: str | None, actor: str
) -> ScheduleInfo:
    """Make a schedule, or change the one that has its key.

    Raises:
        ConfigurationError: the cron expression or the zone is not understood.
    """
    async with client.pool.connection() as connection:
        values = await _values(connection, made)
        name = new_run_id().replace("run_", "sched_")
        parameters = {**values, "name": name, "key": key}
        row = await (await connection.execute(_MAKE, parameters)).fetchone()
        assert row is not None
        return await _told(connection, row[0], "make schedule", actor, made)


async def change_schedule(
    client: Client, name: str, made: MadeSchedule, actor: str
) -> ScheduleInfo:
    """Change a schedule that a client made; its next tick is counted anew.

    Raises:
        UnknownSchedule: there is none of this name.
        DeclaredElsewhere: code declares it.
        ConfigurationError: the cron expression or the zone is not understood.
    """
    async with client.pool.connection() as connection:
        await _require_made(connection, name)
        values = await _values(connection, made)
        await connection.execute(_CHANGE, {**values, "name": name})
        return await _told(connection, name, "change schedule", actor, made)


async def delete_schedule(client: Client, name: str, actor: str) -> None:
    """Delete a schedule that a client made; runs that it made stay.

    Raises:
        UnknownSchedule: there is none of this name.
        DeclaredElsewhere: code declares it.
    """
    async with client.pool.connection() as connection:
        await _require_made(connection, name)
        await connection.execute(_DELETE, [name])
        await note(connection, actor, "delete schedule", f"schedule {name}")


async def _values(connection: psycopg.AsyncConnection, made: MadeSchedule) -> dict[str, Any]:
    cron = Cron(made.cron, made.timezone)
    row = await (await connection.execute("SELECT clock_timestamp()")).fetchone()
    assert row is not None
    return {**asdict(made), "next_at": next(cron.after(row[0]))}


async def _require_made(connection: psycopg.AsyncConnection, name: str) -> None:
    found = await find_schedule(connection, name)
    if found.managed_by != "api":
        raise DeclaredElsewhere(
            f"the schedule {name} is declared in code, @task(schedule=…); change it there and "
            "run: triggerkit apply"
        )


async def _told(
    connection: psycopg.AsyncConnection, name: str, action: str, actor: str, made: MadeSchedule
) -> ScheduleInfo:
    detail = {"task": made.task, "cron": made.cron, "timezone": made.timezone}
    await note(connection, actor, action, f"schedule {name}", detail)
    await connection.execute(_WAKE)
    return await find_schedule(connection, name)
