"""Looking at schedules, pausing and resuming them, and running them beside their ticks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from triggerkit.errors import TriggerkitError, UnknownSchedule, unknown_name
from triggerkit.runs.client import Client
from triggerkit.runs.run import RunRef
from triggerkit.runs.schedules import Cron, run_beside
from triggerkit.state.audit import note

_LIST = """
SELECT name, task, queue, cron, timezone, catch_up, paused_at, next_at, last_at, last_run
FROM triggerkit.schedules ORDER BY name
"""

_PAUSE = """
UPDATE triggerkit.schedules SET paused_at = coalesce(paused_at, clock_timestamp()) WHERE name = %s
"""

#: The row is held, so that nobody makes a tick's run while it is moved on.
_HOLD = "SELECT clock_timestamp() FROM triggerkit.schedules WHERE name = %s FOR UPDATE"

_RESUME = "UPDATE triggerkit.schedules SET paused_at = NULL, next_at = %s WHERE name = %s"


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """A stored schedule of a task. `next_at` is the tick to come, `last_run` the run of the
    last."""

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
