"""Queue limits and schedules as code declares them: how the state differs, and making it so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, TypeVar

import psycopg

from triggerkit.runs.schedules import Cron
from triggerkit.state.channels import KEEPER

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a queue: at most `concurrency` runs at a time, and at most `rate_limit` starts
    in any `rate_period_s` seconds."""

    concurrency: int | None = None
    rate_limit: int | None = None
    rate_period_s: float | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule of a task, and what its runs are made with."""

    task: str
    queue: str
    max_attempts: int
    cron: str
    timezone: str
    catch_up: bool
    ttl_s: float | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class DeclaredRuns:
    """Declarations of tasks about their runs: limits by queue, schedules by name."""

    queues: Mapping[str, Limits] = field(default_factory=dict)
    schedules: Mapping[str, Schedule] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunStep:
    """One change to a queue's limits or a schedule."""

    verb: Literal["create", "change", "delete"]
    kind: Literal["queue", "schedule"]
    name: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.verb} {self.heading}", *(f"    {d}" for d in self.details)])

    @property
    def heading(self) -> str:
        """Describe the change."""
        return f"{'limits of queue' if self.kind == 'queue' else self.kind} {self.name}"

    @property
    def done(self) -> str:
        """The line that tells of it."""
        past = {"create": "created", "change": "changed", "delete": "deleted"}[self.verb]
        return f"{past} {self.heading}"


_IS_THERE = "SELECT to_regclass('triggerkit.queues') IS NOT NULL"

_QUEUES = """
SELECT name, concurrency, rate_limit, rate_period_s FROM triggerkit.queues
WHERE managed_by = 'code' ORDER BY name
"""

_SCHEDULES = """
SELECT name, task, queue, max_attempts, cron, timezone, catch_up, ttl_s, priority
FROM triggerkit.schedules WHERE managed_by = 'code' ORDER BY name
"""

_LIMIT = """
INSERT INTO triggerkit.queues (name, concurrency, rate_limit, rate_period_s, managed_by)
VALUES (%s, %s, %s, %s, 'code')
ON CONFLICT (name) DO UPDATE SET concurrency = excluded.concurrency,
    rate_limit = excluded.rate_limit, rate_period_s = excluded.rate_period_s, managed_by = 'code'
"""

#: What executes already takes up room from now on, what waits is let through by the keeper.
_HOLD = """
UPDATE triggerkit.runs SET gate = CASE status WHEN 'queued' THEN 'held' ELSE 'open' END
WHERE queue = %s AND gate IS NULL AND status IN ('queued', 'executing')
"""

#: The row stays: the keeper lets through by it what was held meanwhile.
_UNLIMIT = """
UPDATE triggerkit.queues SET concurrency = NULL, rate_limit = NULL, rate_period_s = NULL,
    managed_by = 'api'
WHERE name = %s
"""

_LET_GO = """
UPDATE triggerkit.runs SET gate = NULL
WHERE queue = %s AND gate IS NOT NULL
    AND EXISTS (SELECT FROM triggerkit.queues WHERE name = %s AND paused_at IS NULL)
"""

_SCHEDULE = """
INSERT INTO triggerkit.schedules (name, task, queue, max_attempts, cron, timezone, catch_up,
    ttl_s, priority, next_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (name) DO UPDATE SET task = excluded.task, queue = excluded.queue,
    max_attempts = excluded.max_attempts, cron = excluded.cron, timezone = excluded.timezone,
    catch_up = excluded.catch_up, ttl_s = excluded.ttl_s, priority = excluded.priority,
    next_at = CASE WHEN (schedules.cron, schedules.timezone) = (excluded.cron, excluded.timezone)
        THEN schedules.next_at ELSE excluded.next_at END
"""

_UNSCHEDULE = "DELETE FROM triggerkit.schedules WHERE name = %s"

_WAKE = f"SELECT pg_notify('{KEEPER}', '')"


def steps(declared: DeclaredRuns, stored: DeclaredRuns) -> list[RunStep]:
    """Plan the steps that store `declared`."""
    return [
        *_difference("queue", declared.queues, stored.queues),
        *_difference("schedule", declared.schedules, stored.schedules),
    ]


async def plan_runs(state: psycopg.AsyncConnection, declared: DeclaredRuns) -> list[RunStep]:
    """Plan what `apply_runs` does; change nothing."""
    cursor = await state.execute(_IS_THERE)
    is_there = await cursor.fetchone() == (True,)
    return steps(declared, await _stored(state) if is_there else DeclaredRuns())


async def apply_runs(state: psycopg.AsyncConnection, declared: DeclaredRuns) -> list[RunStep]:
    """Make `declared` so, in one transaction; what was done. Doing it twice changes nothing."""
    async with state.transaction():
        planned = steps(declared, await _stored(state))
        for step in planned:
            if step.kind == "queue":
                await _make_queue(state, step, declared.queues)
            else:
                await _make_schedule(state, step, declared.schedules)
        if planned:
            await state.execute(_WAKE)
    return planned


async def _stored(state: psycopg.AsyncConnection) -> DeclaredRuns:
    queues = await (await state.execute(_QUEUES)).fetchall()
    schedules = await (await state.execute(_SCHEDULES)).fetchall()
    return DeclaredRuns(
        {name: Limits(*rest) for name, *rest in queues},
        {name: Schedule(*rest) for name, *rest in schedules},
    )


async def _make_queue(
    state: psycopg.AsyncConnection, step: RunStep, declared: Mapping[str, Limits]
) -> None:
    name = step.name
    if step.verb == "delete":
        await state.execute(_UNLIMIT, [name])
        await state.execute(_LET_GO, [name, name])
        return
    await state.execute(_LIMIT, [name, *astuple(declared[name])])
    if step.verb == "create":
        await state.execute(_HOLD, [name])


async def _make_schedule(
    state: psycopg.AsyncConnection, step: RunStep, declared: Mapping[str, Schedule]
) -> None:
    if step.verb == "delete":
        await state.execute(_UNSCHEDULE, [step.name])
        return
    schedule = declared[step.name]
    cursor = await state.execute("SELECT clock_timestamp()")
    row: tuple[datetime] | None = await cursor.fetchone()
    assert row is not None
    next_at = next(Cron(schedule.cron, schedule.timezone).after(row[0]))
    await state.execute(_SCHEDULE, [step.name, *astuple(schedule), next_at])


def _difference(
    kind: Literal["queue", "schedule"], declared: Mapping[str, T], stored: Mapping[str, T]
) -> list[RunStep]:
    found = []
    for name, wanted in declared.items():
        if name not in stored:
            found.append(RunStep("create", kind, name, _described(wanted)))
        elif wanted != stored[name]:
            found.append(RunStep("change", kind, name, _changed(stored[name], wanted)))
    gone = [name for name in stored if name not in declared]
    undeclared = ("no task declares it any more",)
    return found + [RunStep("delete", kind, name, undeclared) for name in gone]


def _described(value: Any) -> tuple[str, ...]:
    given = [(f.name, getattr(value, f.name)) for f in fields(value)]
    return tuple(f"{name}: {given}" for name, given in given if given not in (None, False))


def _changed(before: Any, after: Any) -> tuple[str, ...]:
    pairs = [(f.name, getattr(before, f.name), getattr(after, f.name)) for f in fields(after)]
    return tuple(f"{n}: {_shown(old)} → {_shown(new)}" for n, old, new in pairs if old != new)


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
