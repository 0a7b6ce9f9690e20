"""Commands about a project and its databases: check, tasks, roles, upgrade, sql."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import typer
from rich.markup import escape
from rich.table import Column, Table

from triggerkit.cli.options import Json, Tasks
from triggerkit.configuration.addresses import read_database_url
from triggerkit.consumers.source.database import CaptureNames
from triggerkit.project import Project
from triggerkit.replication.slot.replication_slot import identify
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.state.migrate import migrate, missing_script, script
from triggerkit.state.pooler import require_own_session
from triggerkit.supervisor.checks import Check, run_checks
from triggerkit.supervisor.checks.models import models_of
from triggerkit.supervisor.declarations import load_declarations
from triggerkit.supervisor.roles import capture_role, state_role
from triggerkit.tasks.registry import load_tasks
from triggerkit.terminal.console import TerminalConsole

console = TerminalConsole(highlight=False, soft_wrap=True)

#: The roles that `roles` prints.
RoleKind = Literal["capture", "state"]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (check, tasks, roles, upgrade, sql):
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


def upgrade(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the SQL that would run, and change nothing.")
    ] = False,
) -> None:
    """Upgrade the schema triggerkit in the state database."""
    settings = Settings.load()

    async def connected() -> str:
        async with await connect(settings.state_dsn, "triggerkit upgrade") as state:
            await require_own_session(state, settings.state_dsn)
            if dry_run:
                return await missing_script(state)
            applied = await migrate(state)
            return "".join(f"applied migration {m.version}: {m.name}\n" for m in applied)

    up_to_date = "the schema triggerkit is up to date\n"
    # What is printed of a dry run is run by psql.
    print(asyncio.run(connected()) or (f"-- {up_to_date}" if dry_run else up_to_date), end="")


def roles(
    tasks: Tasks = None,
    capture: Annotated[
        str, typer.Option(help="Name of the role of DATABASE_URL, which captures.")
    ] = "triggerkit_capture",
    state: Annotated[
        str, typer.Option(help="Name of the role of TRIGGERKIT_STATE_URL, which owns the state.")
    ] = "triggerkit_state",
    only: Annotated[
        RoleKind | None,
        typer.Option(help="Print only one of them, where the state has a database of its own."),
    ] = None,
) -> None:
    """Print the SQL of roles with the least rights, for the tables that are followed."""
    settings, declarations = Settings.load(), load_declarations(Project.load(tasks=tasks))

    async def connected() -> str:
        async with await connect(settings.source_dsn, "triggerkit roles") as source:
            names = CaptureNames.of(settings)
            publication, _ = names.for_database(await identify(source))
            return await capture_role(source, capture, declarations, publication)

    parts = [] if only == "state" else [asyncio.run(connected())]
    if only != "capture":
        database = str(read_database_url(settings.state_dsn).get("dbname", ""))
        parts.append(state_role(state, database))
    print("\n".join(parts), end="")


def sql() -> None:
    """Print the schema triggerkit as SQL."""
    print(script(), end="")


def _print_check(found: Check) -> None:
    mark = "[green]✓[/]" if found.ok else "[red]✗[/]" if found.required else "[yellow]![/]"
    console.print(f"{mark} {escape(found.name)}: {escape(found.detail)}")
    if not found.ok and found.remedy:
        console.print(f"    fix it with: {found.remedy}", markup=False)
