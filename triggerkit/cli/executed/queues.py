"""`queues`, `schedules` and `workers`: what runs run by."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from triggerkit.cli.actor import actor
from triggerkit.cli.executed.run_view import when
from triggerkit.cli.options import Json
from triggerkit.cli.run_client import (
    console,
    print_json,
    print_table,
    with_client,
    with_state,
)
from triggerkit.errors import ConfigurationError, suggested
from triggerkit.runs.admin.queues import (
    QueueInfo,
    limit_queue,
    list_queues,
    pause_queue,
    resume_queue,
)
from triggerkit.runs.admin.schedules import (
    list_schedules,
    pause_schedule,
    resume_schedule,
    run_schedule,
)
from triggerkit.runs.admin.workers import list_workers
from triggerkit.tasks.queue import Queue
from triggerkit.terminal.console import counted

QueueName = Annotated[str, typer.Argument(help="The queue's name.")]
ScheduleName = Annotated[str, typer.Argument(help="The schedule's name.")]


def register(app: typer.Typer) -> None:
    """Add the groups to `app`."""
    queues = typer.Typer(help="Inspect, limit and pause queues.", no_args_is_help=True)
    queues.command("list")(queues_list)
    queues.command("pause")(queues_pause)
    queues.command("resume")(queues_resume)
    queues.command("limit")(queues_limit)
    app.add_typer(queues, name="queues")
    schedules = typer.Typer(help="Inspect, pause and trigger schedules.", no_args_is_help=True)
    schedules.command("list")(schedules_list)
    schedules.command("pause")(schedules_pause)
    schedules.command("resume")(schedules_resume)
    schedules.command("run")(schedules_run)
    app.add_typer(schedules, name="schedules")
    workers = typer.Typer(help="Inspect the processes that execute runs.", no_args_is_help=True)
    workers.command("list")(workers_list)
    app.add_typer(workers, name="workers")


def queues_list(json: Json = False) -> None:
    """List queues: how full they are, their limits, and whether they are paused."""
    found = with_state(list_queues)
    if json:
        print_json([asdict(queue) for queue in found])
        return
    names = ("queue", "queued", "held", "delayed", "retrying", "executing", "workers", "limits")
    table = Table(*names, box=None, pad_edge=False)
    for queue in found:
        counts = (queue.queued, queue.held, queue.delayed, queue.retrying, queue.executing)
        table.add_row(queue.name, *map(str, counts), str(queue.workers), _limits(queue))
    print_table(table)


def queues_pause(queue: QueueName) -> None:
    """Stop starting runs of a queue; executing runs finish."""
    known = [one.name for one in with_state(list_queues)]
    found = with_client(lambda client: pause_queue(client, Queue(queue).name, actor()))
    console.print(f"paused {queue}: {_waiting(found.held)}", markup=False)
    if queue not in known:
        _tell_unused(queue, known)


def queues_resume(queue: QueueName) -> None:
    """Resume a paused queue."""
    found = with_client(lambda client: resume_queue(client, queue, actor()))
    waiting = _waiting(found.queued + found.held)
    console.print(f"resumed {queue}: {waiting}", markup=False)


def queues_limit(
    queue: QueueName,
    concurrency: Annotated[
        int | None, typer.Option(min=0, help="Maximum runs at a time; 0 for no limit.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Maximum starts per period: 100/m, 5/s, 100/15s; or none.")
    ] = None,
) -> None:
    """Set the given limits of a queue and keep the others."""
    if concurrency is None and rate is None:
        raise ConfigurationError("say which limit: --concurrency or --rate")
    limits = Queue(queue, concurrency or None, None if rate == "none" else rate)
    queues = {found.name: found for found in with_state(list_queues)}
    known = queues.get(queue, QueueInfo(queue))
    found = with_client(
        lambda client: limit_queue(
            client,
            queue,
            actor(),
            concurrency=known.concurrency if concurrency is None else limits.concurrency,
            rate=_rate(known) if rate is None else limits.rate_limit,
        )
    )
    console.print(f"{queue}: {_limits(found) or 'no limits'}", markup=False)
    if queue not in queues:
        _tell_unused(queue, queues)


def _waiting(count: int) -> str:
    return f"{counted(count, 'run')} {'waits' if count == 1 else 'wait'} in it"


def _tell_unused(queue: str, known: Collection[str]) -> None:
    """Say that a queue may be misspelt: it was set ahead of its first run."""
    meant = suggested(queue, known)
    print(f"warning: nothing has the queue {queue!r} yet{meant}", file=sys.stderr)


def schedules_list(json: Json = False) -> None:
    """List schedules and their next ticks."""
    found = with_state(list_schedules)
    if json:
        print_json(found)
        return
    names = ("schedule", "task", "cron", "zone", "next (UTC)", "last (UTC)", "last run")
    table = Table(*names, box=None, pad_edge=False)
    for schedule in found:
        due = f"{schedule.next_at:%m-%d %H:%M}" if schedule.paused_at is None else "paused"
        last = "" if schedule.last_at is None else when(schedule.last_at)
        table.add_row(
            schedule.name, schedule.task, schedule.cron, schedule.timezone, due, last,
            schedule.last_run or "",
        )  # fmt: skip
    print_table(table)


def schedules_pause(schedule: ScheduleName) -> None:
    """Stop creating runs of a schedule."""
    with_client(lambda client: pause_schedule(client, schedule, actor()))
    console.print(f"paused {schedule}", markup=False)


def schedules_resume(schedule: ScheduleName) -> None:
    """Resume a paused schedule."""
    found = with_client(lambda client: resume_schedule(client, schedule, actor()))
    console.print(
        f"resumed {schedule}: next at {found.next_at:%Y-%m-%d %H:%M:%S} UTC", markup=False
    )


def schedules_run(schedule: ScheduleName) -> None:
    """Create a run of a schedule now; print the run's handle."""
    print_json(with_client(lambda client: run_schedule(client, schedule, actor())).as_json())


def workers_list(json: Json = False) -> None:
    """List the processes that execute runs, and whether they are alive."""
    found = with_client(lambda client: list_workers(client.pool))
    if json:
        print_json(found)
        return
    table = Table(
        "worker", "alive", "busy", "version", "since (UTC)", "tasks", box=None, pad_edge=False
    )
    for worker in found:
        alive = {True: "yes", False: "silent", None: "new"}[worker.alive]
        busy = f"{worker.executing}/{worker.slots + worker.async_slots}"
        table.add_row(
            worker.id, alive, busy, worker.version or "", when(worker.started_at),
            ", ".join(worker.tasks),
        )  # fmt: skip
    print_table(table)


def _rate(queue: QueueInfo) -> tuple[int, float] | None:
    if queue.rate_limit is None or queue.rate_period_s is None:
        return None
    return queue.rate_limit, queue.rate_period_s


def _limits(queue: QueueInfo) -> str:
    parts = [f"paused since {when(queue.paused_at)} UTC"] if queue.paused_at is not None else []
    if queue.concurrency is not None:
        parts.append(f"{queue.concurrency} at a time")
    if queue.rate_limit is not None:
        parts.append(f"{queue.rate_limit} in {queue.rate_period_s:g} s")
    return ", ".join(parts)
