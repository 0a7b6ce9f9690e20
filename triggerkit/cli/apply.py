"""`plan` and `apply`: from what a project declares to what is there."""

from __future__ import annotations

import asyncio
import runpy
import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.markup import escape

from triggerkit.cli.options import Json, Tasks
from triggerkit.consumers.apply import apply as apply_declarations
from triggerkit.consumers.apply import plan as plan_declarations
from triggerkit.consumers.declaration import Declarations
from triggerkit.consumers.plan import Plan, Step
from triggerkit.encryption import Keyring
from triggerkit.errors import TriggerkitError
from triggerkit.settings import Project, Settings
from triggerkit.state.connect import connect
from triggerkit.state.migrate import migrate
from triggerkit.supervisor.declarations import load_declarations

console = Console(highlight=False, soft_wrap=True)

_COLORS = {"create": "green", "delete": "red", "change": "yellow", "replay": "yellow"}


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(plan)
    app.command()(apply)


def plan(tasks: Tasks = None, json: Json = False) -> None:
    """Show what `apply` would change."""
    declarations = load_declarations(Project.load(tasks=tasks))
    planned = asyncio.run(_plan(Settings.load(), declarations))
    if json:
        print(orjson.dumps(_as_json(planned)).decode())
        return
    _print(planned)


def apply(
    tasks: Tasks = None,
    setup: Annotated[
        str | None, typer.Option(help="Run this module first, as `python -m` does.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Make steps that lose something without asking.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave out steps that lose something.")
    ] = False,
) -> None:
    """Make the consumers and endpoints so that code and triggerkit.toml declare."""
    if setup is not None:
        _run_module(setup)
    settings = Settings.load()
    declarations = load_declarations(Project.load(tasks=tasks))
    may_lose = yes or (not keep and _consented(settings, declarations))
    for line in asyncio.run(_apply(settings, declarations, may_lose)):
        print(line)


async def _plan(settings: Settings, declarations: Declarations) -> Plan:
    async with (
        await connect(settings.source_dsn, "triggerkit plan") as source,
        await connect(settings.state_dsn, "triggerkit plan") as state,
    ):
        return await plan_declarations(source, state, declarations)


async def _apply(settings: Settings, declarations: Declarations, may_lose: bool) -> list[str]:
    async with (
        await connect(settings.source_dsn, "triggerkit apply") as source,
        await connect(settings.state_dsn, "triggerkit apply") as state,
    ):
        await migrate(state)
        return await apply_declarations(
            source,
            state,
            declarations,
            settings.public_url,
            keyring=Keyring(settings.encryption_keys),
            may_lose=may_lose,
        )


def _consented(settings: Settings, declarations: Declarations) -> bool:
    """Whether steps that lose something may be made; asks when there are some.

    Raises:
        TriggerkitError: nobody is there to be asked.
    """
    planned = asyncio.run(_plan(settings, declarations))
    if not planned.losing:
        return False
    _print(planned)
    if not sys.stdin.isatty():
        raise TriggerkitError(
            "nothing was changed: some steps would lose something; run with --yes to make them "
            "all, or with --keep to leave those out"
        )
    return typer.confirm("Make all of it so?", abort=True)


def _print(planned: Plan) -> None:
    for step in planned.steps:
        _print_step(step)
    for warning in planned.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}")
    if not planned.steps:
        console.print("nothing to change")


def _print_step(step: Step) -> None:
    color = _COLORS.get(step.verb, "cyan")
    first, *rest = str(step).splitlines()
    console.print(f"[{color}]{step.verb}[/]{escape(first.removeprefix(step.verb))}")
    for line in rest:
        console.print(line, markup=False)


def _as_json(planned: Plan) -> dict[str, object]:
    steps = [
        {"verb": s.verb, "consumer": s.name, "details": s.details, "loses": s.loses}
        for s in planned.steps
    ]
    return {"steps": steps, "warnings": planned.warnings}


def _run_module(name: str) -> None:
    """Run a module as `python -m` does, but in this process: starting another takes longer."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code not in (None, 0):
            raise
