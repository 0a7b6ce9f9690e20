"""Commands about a project and its databases: check, tasks, upgrade, sql."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.markup import escape
from rich.table import Column, Table

from triggerkit.cli.options import Json, Tasks
from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.state.migrate import migrate, script
from triggerkit.state.pooler import require_own_session
from triggerkit.supervisor.checks import Check, run_checks
from triggerkit.supervisor.checks.models import models_of
from triggerkit.supervisor.declarations import load_declarations
from triggerkit.tasks.registry import load_tasks
from triggerkit.terminal.console import TerminalConsole

console = TerminalConsole(highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (check, tasks, upgrade, sql):
        app.command()(command)


def check(tasks: Tasks = None, json: Json = False) -> None:
    """Check the databases, Redis and the endpoints; print a fix for each problem."""
    project = Project.load(tasks=tasks)
    declared, models = load_declarations(project), models_of(load_tasks(project).values())
    checks = asyncio.run(
        run_checks(
            Settings.load(), declared.consumers, declared.endpoints, models=models, advise=True
        )
    )
    if json:
        print(orjson.dumps(checks, option=orjson.OPT_SERIALIZE_DATACLASS).decode())
    else:
        for found in checks:
            _print_check(found)
    if any(found.failed for found in checks):
        raise typer.Exit(3)


def tasks(tasks: Tasks = None, json: Json = False) -> None:
    """List the project's tasks."""
    found: list[dict[str, Any]] = [
        {
            "name": task.name,
            "place": task.place,
            "queue": task.queue,
            "max_attempts": task.retry.max_attempts,
            "route": task.path if task.has_route else None,
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
            await require_own_session(state, settings.state_dsn)
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
