"""Commands about a project and its databases: check, status, tasks, upgrade, sql."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape
from rich.table import Column, Table

from triggerkit.cli.options import App, Json, Tasks
from triggerkit.project import Project
from triggerkit.settings import Settings, running_dev
from triggerkit.state.connect import connect
from triggerkit.state.migrate import migrate, script
from triggerkit.supervisor.checks import Check, run_checks
from triggerkit.supervisor.declarations import load_declarations
from triggerkit.supervisor.status import read_status
from triggerkit.tasks.registry import load_tasks
from triggerkit.terminal.console import TerminalConsole

console = TerminalConsole(highlight=False, soft_wrap=True)

#: How bad a problem is, the worst first, and the marks of each and of none.
_SEVERITIES = ("error", "warning", "advice")
_MARKS = ("[red]✗[/]", "[yellow]![/]", "[yellow]![/]", "[green]✓[/]")


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (check, status, tasks, upgrade, sql):
        app.command()(command)


def check(tasks: Tasks = None, json: Json = False) -> None:
    """Check the databases, Redis and the endpoints; print a fix for each problem."""
    declared = load_declarations(Project.load(tasks=tasks)).consumers
    checks = asyncio.run(run_checks(Settings.load(), declared, advise=True))
    if json:
        print(orjson.dumps(checks, option=orjson.OPT_SERIALIZE_DATACLASS).decode())
    else:
        for found in checks:
            _print_check(found)
    if any(found.failed for found in checks):
        raise typer.Exit(3)


def status(
    app: App = None,
    tasks: Tasks = None,
    json: Json = False,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Print passwords in connection strings.")
    ] = False,
) -> None:
    """Show processes, databases, consumers and problems; exit 0 only when ready."""
    found = asyncio.run(
        read_status(Project.load(app=app, tasks=tasks), running_dev(Path.cwd()), show_secrets)
    )
    if json:
        print(orjson.dumps(found).decode())
    else:
        _print_status(found)
    raise typer.Exit(0 if found["ready"] else 1)


def tasks(tasks: Tasks = None, json: Json = False) -> None:
    """List the project's tasks."""
    found: list[dict[str, Any]] = [
        {
            "name": task.name,
            "place": task.place,
            "queue": task.queue,
            "max_attempts": task.retry.max_attempts,
            "route": task.path if task.on else None,
            "tables": list(task.on.tables) if task.on else [],
        }
        for task in load_tasks(Project.load(tasks=tasks)).values()
    ]
    if json:
        print(orjson.dumps(found).decode())
        return
    where = Column("where", no_wrap=True, overflow="ignore")
    table = Table("task", "queue", "on", where, box=None, pad_edge=False)
    for task in found:
        place = Path(task["place"])
        shown = place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
        table.add_row(task["name"], task["queue"], ", ".join(task["tables"]), str(shown))
    console.print(table)


def upgrade() -> None:
    """Upgrade the schema triggerkit in the state database."""
    settings = Settings.load()

    async def connected() -> list[str]:
        async with await connect(settings.state_dsn, "triggerkit upgrade") as state:
            return [f"applied migration {m.version}: {m.name}" for m in await migrate(state)]

    for line in asyncio.run(connected()) or ["the schema triggerkit is up to date"]:
        print(line)


def sql() -> None:
    """Print the schema triggerkit as SQL."""
    print(script(), end="")


def _print_check(found: Check) -> None:
    mark = "[green]✓[/]" if found.ok else "[red]✗[/]" if found.required else "[yellow]![/]"
    console.print(f"{mark} {escape(found.name)}: {escape(found.detail)}")
    if not found.ok and found.remedy:
        console.print(f"    fix it with: {found.remedy}", markup=False)


def _print_status(found: dict[str, Any]) -> None:
    console.print("[green]ready[/]" if found["ready"] else "[yellow]not ready[/]")
    if found["problem"]:
        console.print(found["problem"], markup=False)
    for name in ("url", "database_url", "redis_url", "state_dir"):
        console.print(f"{name.replace('_', ' ')}: {found[name]}", markup=False)
    table = Table("process", "pid", "state", box=None, pad_edge=False)
    for process in found["processes"]:
        table.add_row(process["name"], str(process["pid"] or ""), process["state"])
    console.print(table)
    for database in found["databases"]:
        _print_database(database)
    for consumer in found["consumers"]:
        _print_consumer(consumer)
    for task in found["waiting"]:
        _print_health("task", {"name": task["task"], **task}, [f"{task['runs']:,} runs wait"])


def _print_database(database: dict[str, Any]) -> None:
    first, last = database["log_first_position"], database["log_last_position"]
    behind = database["slot_lag_bytes"]
    facts = [
        f"log {first:,} to {last:,}, {database['log_bytes'] / 1e6:,.1f} MB",
        "slot unknown" if behind is None else f"slot {behind / 1e6:,.1f} MB behind",
    ]
    _print_health("database", database, facts)


def _print_consumer(consumer: dict[str, Any]) -> None:
    lag = f"{consumer['lag_messages']:,} messages, {consumer['lag_seconds']:.1f} s behind"
    facts = [consumer["state"], lag]
    if consumer["parked"]:
        facts.append(f"{consumer['parked']:,} parked")
    if consumer["last_error"]:
        facts.append(f"last error: {consumer['last_error']}")
    _print_health("consumer", consumer, facts)


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
