"""Commands about runs: trigger, runs list, runs show."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Column, Table

from triggerkit.cli.options import Json, Tasks
from triggerkit.errors import ConfigurationError, TriggerkitError, UnknownTask
from triggerkit.runs.browse import list_runs, show_run
from triggerkit.runs.client import portal
from triggerkit.runs.run import RUN_ID_CHARS, Status
from triggerkit.settings import Project, Settings
from triggerkit.state.connect import connect
from triggerkit.worker.registry import load_tasks

console = Console(highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(trigger)
    group = typer.Typer(help="Runs: list and show.", no_args_is_help=True)
    group.command("list")(list_command)
    group.command("show")(show)
    app.add_typer(group, name="runs")


def trigger(
    task: Annotated[str, typer.Argument(help="The task's name.")],
    payload: Annotated[str, typer.Option(help="JSON, or @file to read it from a file.")] = "{}",
    tasks: Tasks = None,
) -> None:
    """Run a task with a payload; prints the run's handle."""
    known = load_tasks(Project.load(tasks=tasks))
    if task not in known:
        raise UnknownTask(f"no task is named {task!r}; found: {', '.join(sorted(known)) or 'none'}")
    run = known[task].new_run(_payload(payload))
    handle = portal.accept([run])[0]
    print(orjson.dumps(handle.as_json()).decode())


def list_command(
    task: Annotated[str | None, typer.Option("--task", help="Only of this task.")] = None,
    status: Annotated[Status | None, typer.Option("--status", help="Only in this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many.")] = 20,
    json: Json = False,
) -> None:
    """List the latest runs."""

    async def connected() -> list[dict[str, Any]]:
        async with await connect(Settings.load().state_dsn, "triggerkit runs") as state:
            return await list_runs(state, task=task, status=status, limit=limit)

    runs = asyncio.run(connected())
    if json:
        print(orjson.dumps(runs).decode())
        return
    # Ids are shown whole: they are what one copies.
    table = Table(Column("run", min_width=RUN_ID_CHARS), box=None, pad_edge=False)
    for name in ("task", "status", "row", "attempt", "created", "took"):
        table.add_column(name)
    for run in runs:
        attempt = f"{run['attempt']}/{run['max_attempts']}"
        created = f"{run['created_at']:%H:%M:%S}"
        table.add_row(
            run["id"], run["task"], run["status"], _row(run), attempt, created, _took(run)
        )
    console.print(table)


def show(run_id: Annotated[str, typer.Argument(help="run_…")], json: Json = False) -> None:
    """Show one run."""

    async def connected() -> dict[str, Any] | None:
        async with await connect(Settings.load().state_dsn, "triggerkit runs") as state:
            return await show_run(state, run_id)

    run = asyncio.run(connected())
    if run is None:
        raise TriggerkitError(f"no run has the id {run_id!r}; `triggerkit runs list` shows them")
    if json:
        print(orjson.dumps(run).decode())
        return
    for name, value in run.items():
        if value in (None, [], {}):
            continue
        shown = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
        console.print(f"{name:<16} {shown[:2000]}", markup=False)


def _payload(text: str) -> Any:
    source = "--payload"
    if text.startswith("@"):
        source = text[1:]
        try:
            text = Path(source).read_text()
        except OSError as error:
            raise ConfigurationError(f"{source}: {error.strerror}") from error
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"{source} is not JSON: {error}") from error


def _row(run: dict[str, Any]) -> str:
    if (run["items"] or 0) > 1:
        return f"{run['items']} changes"
    source = run["source"] or {}
    return str(source.get("key") or source.get("table") or "")


def _took(run: dict[str, Any]) -> str:
    if run["started_at"] is None:
        return ""
    end = run["finished_at"] or datetime.now(UTC)
    return f"{(end - run['started_at']).total_seconds() * 1000:.0f} ms"
