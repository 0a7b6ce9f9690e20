"""`databases`: the source databases, how far they are captured, and what is wrong with them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from triggerkit.cli.options import Json
from triggerkit.errors import TriggerkitError, unknown_name
from triggerkit.settings import Settings
from triggerkit.supervisor.status import read_health
from triggerkit.terminal.console import TerminalConsole

console = TerminalConsole(highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    group = typer.Typer(help="Show source databases.", no_args_is_help=True)
    group.command("list")(list_databases)
    group.command()(show)
    app.add_typer(group, name="databases")


def list_databases(json: Json = False) -> None:
    """List the source databases."""
    found = _databases()
    if json:
        print(orjson.dumps(found).decode())
        return
    table = Table("database", "slot", "log", "problems", box=None, pad_edge=False)
    for database in found:
        log = f"{database['log_first_position']:,} to {database['log_last_position']:,}"
        problems = ", ".join(problem["name"] for problem in database["problems"])
        table.add_row(database["name"], database["slot_name"], log, problems)
    console.print(table)


def show(
    name: Annotated[str, typer.Argument(help="The database's name.")], json: Json = False
) -> None:
    """Show one source database: its slot, its log and its problems."""
    databases = {database["name"]: database for database in _databases()}
    if name not in databases:
        raise TriggerkitError(unknown_name("database", name, databases))
    found = databases[name]
    if json:
        print(orjson.dumps(found).decode())
        return
    for key, value in found.items():
        if key != "problems":
            console.print(f"{key.replace('_', ' '):<20} {value}", markup=False)
    for problem in found["problems"]:
        console.print(f"{problem['severity']}: {problem['detail']}", markup=False)
        console.print(f"    fix it with: {problem['remedy']}", markup=False)


def _databases() -> list[dict[str, Any]]:
    return asyncio.run(read_health(Settings.load()))["databases"]
