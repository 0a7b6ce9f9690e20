"""Show and change queues, schedules and workers through the API."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from triggerkit.runs.admin.backlog import QueueBacklog, backlog
from triggerkit.runs.admin.queues import (
    QueueInfo,
    find_queue,
    limit_queue,
    list_queues,
    pause_queue,
    resume_queue,
)
from triggerkit.runs.admin.schedules import (
    ScheduleInfo,
    list_schedules,
    pause_schedule,
    resume_schedule,
    run_schedule,
)
from triggerkit.runs.admin.workers import WorkerInfo, list_workers
from triggerkit.tasks.queue import Queue
from triggerkit.web.api.executed.runs import RunHandle
from triggerkit.web.api.operation import ACTOR, Call, Given, Page


class QueueLimits(Given):
    """The limits that are set; null is none, and what is not given stays. `rate` is such as
    "100/m", "5/s", or "100/15s"."""

    concurrency: Annotated[int | None, Field(ge=1, le=2**31 - 1)] = None
    rate: Annotated[str | None, Field(max_length=40)] = None


class WorkerQuery(Given):
    """For how many seconds the workers are watched, to see whether they send heartbeats."""

    watch_s: Annotated[float, Field(ge=0, le=10)] = 2.5


class Backlog(BaseModel):
    """The runs that wait for a worker, in all and by queue; with `is_at_least` there may be more.
    The oldest one waits for `oldest_seconds`, 0 where none does."""

    runs: int
    is_at_least: bool
    oldest_seconds: float
    queues: list[QueueBacklog]


async def show_backlog(call: Call) -> Backlog:
    """Return how many runs wait for a worker, counted up to 5,000, and since when. Made for
    autoscalers: it takes as long for a million runs as for a few thousand."""
    async with call.state() as state:
        queues = await backlog(state)
    return Backlog(
        runs=sum(queue.runs for queue in queues),
        is_at_least=any(queue.is_at_least for queue in queues),
        oldest_seconds=max((queue.oldest_seconds for queue in queues), default=0.0),
        queues=queues,
    )


async def list_all_queues(call: Call) -> Page[QueueInfo]:
    """Return the queues that have runs, workers, limits or a pause, by name."""
    async with call.state() as state:
        return Page(data=await list_queues(state))


async def edit_queue(call: Call, name: str, body: QueueLimits) -> QueueInfo:
    """Set limits of a queue. Those that code declares are set anew by `triggerkit apply`."""
    asked = Queue(name, body.concurrency, body.rate)
    async with call.state() as state:
        known = {queue.name: queue for queue in await list_queues(state)}.get(name)
    given = body.model_fields_set
    rate, concurrency = asked.rate_limit, asked.concurrency
    if known is not None and "concurrency" not in given:
        concurrency = known.concurrency
    if known is not None and "rate" not in given and known.rate_limit and known.rate_period_s:
        rate = (known.rate_limit, known.rate_period_s)
    return await limit_queue(call.client, name, ACTOR, concurrency=concurrency, rate=rate)


async def show_queue(call: Call, name: str) -> QueueInfo:
    """Return one queue."""
    async with call.state() as state:
        return await find_queue(state, name)


async def pause_one_queue(call: Call, name: str) -> QueueInfo:
    """Start no more runs of a queue; those that execute go on."""
    return await pause_queue(call.client, Queue(name).name, ACTOR)


async def resume_one_queue(call: Call, name: str) -> QueueInfo:
    """Start runs of a paused queue again."""
    return await resume_queue(call.client, name, ACTOR)


async def list_all_schedules(call: Call) -> Page[ScheduleInfo]:
    """Return the schedules, by name."""
    async with call.state() as state:
        return Page(data=await list_schedules(state))


async def pause_one_schedule(call: Call, name: str) -> ScheduleInfo:
    """Make no more runs by the clock."""
    return await pause_schedule(call.client, name, ACTOR)


async def resume_one_schedule(call: Call, name: str) -> ScheduleInfo:
    """Make runs by the clock again: from the next tick on, or, of one that catches up, from the
    first that it missed."""
    return await resume_schedule(call.client, name, ACTOR)


async def run_one_schedule(call: Call, name: str) -> RunHandle:
    """Make a run of a schedule now, beside its ticks."""
    handle = await run_schedule(call.client, name, ACTOR)
    return RunHandle(id=handle.id, task=handle.task)


async def list_all_workers(call: Call, query: WorkerQuery) -> Page[WorkerInfo]:
    """Return the processes that execute runs, watched until each has raised its heartbeat."""
    return Page(data=await list_workers(call.client.pool, query.watch_s))
