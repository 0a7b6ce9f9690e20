"""The command `status`: what runs, how far it is, and what is wrong, each with its remedy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from triggerkit.cli.options import App, Json, Tasks
from triggerkit.project import Project
from triggerkit.settings import running_dev
from triggerkit.supervisor.status import read_status
from triggerkit.terminal.console import TerminalConsole

console = TerminalConsole(highlight=False, soft_wrap=True)

#: How bad a problem is, the worst first, and the marks of each and of none.
_SEVERITIES = ("error", "warning", "advice")
_MARKS = ("[red]✗[/]", "[yellow]![/]", "[yellow]![/]", "[green]✓[/]")

#: Seconds between two looks of `--watch`.
WATCH_S = 2.0

#: Things of one kind that are printed; the others are counted.
MOST_PRINTED = 50


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(status)


def status(
    app: App = None,
    tasks: Tasks = None,
    json: Json = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again every 2 seconds, until Ctrl-C.")
    ] = False,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Print passwords in connection strings.")
    ] = False,
) -> None:
    """Show processes, databases, consumers, runs and problems; exit 0 only when ready."""
    project = Project.load(app=app, tasks=tasks)
    while True:
        found = asyncio.run(read_status(project, running_dev(Path.cwd()), show_secrets))
        if watch and console.is_terminal and not json:
            console.clear()
        if json:
            print(orjson.dumps(found).decode(), flush=True)
        else:
            _print_status(found)
        if not watch:
            raise typer.Exit(0 if found["ready"] else 1)
        time.sleep(WATCH_S)


def _print_status(found: dict[str, Any]) -> None:
    console.print("[green]ready[/]" if found["ready"] else "[yellow]not ready[/]")
    for line in filter(None, [found["problem"], *found["missing"]]):
        console.print(line, markup=False)
    for name in ("url", "database_url", "redis_url", "state_dir"):
        console.print(f"{name.replace('_', ' ')}: {found[name]}", markup=False)
    table = Table("process", "pid", "state", box=None, pad_edge=False)
    for process in found["processes"]:
        table.add_row(process["name"], str(process["pid"] or ""), process["state"])
    console.print(table)
    for name, print_one in _PRINTED.items():
        for one in found[name][:MOST_PRINTED]:
            print_one(one)
        if (more := len(found[name]) - MOST_PRINTED) > 0:
            console.print(f"  and {more:,} more of {name}: triggerkit status --json")
    if tables := [table for consumer in found["consumers"] for table in consumer["tables"]]:
        ask = f"triggerkit why {tables[0]} KEY"
        console.print(f"why a row has no effect, or another than expected: {ask}", markup=False)


def _print_waiting(task: dict[str, Any]) -> None:
    runs = "1 run waits" if task["runs"] == 1 else f"{task['runs']:,} runs wait"
    _print_health("task", {"name": task["task"], **task}, [runs])


def _print_failing(task: dict[str, Any]) -> None:
    _print_health("task", {"name": task["task"], **task}, [task["type"]])


def _print_queue(queue: dict[str, Any]) -> None:
    _print_health("queue", queue, list(_of_queue(queue)))


def _print_schedule(schedule: dict[str, Any]) -> None:
    _print_health("schedule", schedule, [schedule["task"]])


def _print_database(database: dict[str, Any]) -> None:
    first, last = database["log_first_position"], database["log_last_position"]
    behind = database["slot_lag_bytes"]
    facts = [
        f"log {first:,} to {last:,}, {database['log_bytes'] / 1e6:,.1f} MB",
        "slot unknown" if behind is None else f"slot {behind / 1e6:,.1f} MB behind",
    ]
    _print_health("database", database, facts)


def _print_consumer(consumer: dict[str, Any]) -> None:
    messages = consumer["lag_messages"]
    noun = "message" if messages == 1 else "messages"
    facts = [
        consumer["state"],
        f"{messages:,} {noun}, {consumer['lag_seconds']:.1f} s behind",
    ]
    if consumer["filters"]:
        facts.append(f"only rows with {'; '.join(consumer['filters'])}")
    if consumer["parked"]:
        facts.append(f"{consumer['parked']:,} parked")
    if consumer["last_error"]:
        facts.append(f"last error: {consumer['last_error']}")
    _print_health("consumer", consumer, facts)


def _of_queue(queue: dict[str, Any]) -> Iterator[str]:
    for name in ("executing", "queued", "held", "delayed", "retrying"):
        if queue[name]:
            yield f"{queue[name]:,} {name}"
    if queue["concurrency"] is not None:
        yield f"limit {queue['concurrency']:,}"
    yield "1 worker" if queue["workers"] == 1 else f"{queue['workers']:,} workers"


def _print_worker(worker: dict[str, Any]) -> None:
    heartbeat = {True: "alive", False: "silent", None: "starting"}[worker["alive"]]
    slots = worker["slots"] + worker["async_slots"]
    facts = [f"pid {worker['pid']}", heartbeat, f"{worker['executing']:,} of {slots:,} slots"]
    _print_health("worker", {"name": worker["hostname"], **worker}, facts)


def _print_health(what: str, health: dict[str, Any], facts: list[str]) -> None:
    """Print one line, and two for each problem, the worst one's mark before it."""
    problems = health["problems"]
    worst = min((_SEVERITIES.index(p["severity"]) for p in problems), default=len(_SEVERITIES))
    line = f"{what} {health['name']}: {', '.join(facts)}"
    console.print(f"{_MARKS[worst]} {escape(line)}")
    for problem in problems:
        mark = _MARKS[_SEVERITIES.index(problem["severity"])]
        console.print(f"  {mark} {escape(problem['detail'])}")
        console.print(f"      fix it with: {problem['remedy']}", markup=False)


_PRINTED: Final = {
    "databases": _print_database,
    "consumers": _print_consumer,
    "waiting": _print_waiting,
    "failing": _print_failing,
    "queues": _print_queue,
    "workers": _print_worker,
    "schedules": _print_schedule,
}
