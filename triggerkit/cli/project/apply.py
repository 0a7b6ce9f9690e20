"""`plan` and `apply`: from what a project declares to what is there."""

from __future__ import annotations

import asyncio
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.markup import escape

from triggerkit.cli.options import Json, Tasks
from triggerkit.consumers.declare.apply import apply as apply_declarations
from triggerkit.consumers.declare.apply import plan as plan_declarations
from triggerkit.consumers.declare.declaration import Declarations
from triggerkit.consumers.declare.plan import Plan, PlanStep
from triggerkit.consumers.declare.preparations import Preparation
from triggerkit.consumers.source.database import CaptureNames
from triggerkit.encryption import Keyring
from triggerkit.errors import TriggerkitError
from triggerkit.project import Project
from triggerkit.runs.declared import DeclaredRuns, RunStep, apply_runs, plan_runs
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.state.migrate import migrate
from triggerkit.state.pooler import require_own_session
from triggerkit.supervisor.declarations import load_all_declarations
from triggerkit.terminal.console import TerminalConsole

console = TerminalConsole(highlight=False, soft_wrap=True)

_COLORS = {
    "create": "green",
    "delete": "red",
    "replace": "red",
    "change": "yellow",
    "replay": "yellow",
}


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(plan)
    app.command()(apply)


def plan(tasks: Tasks = None, json: Json = False) -> None:
    """Show what `apply` would change."""
    declarations, runs = load_all_declarations(Project.load(tasks=tasks))
    settings = Settings.load()
    planned = asyncio.run(_plan(settings, declarations))
    of_runs = asyncio.run(_plan_runs(settings, runs))
    if json:
        print(orjson.dumps(_as_json(planned, of_runs)).decode())
        return
    _print(planned, of_runs)


def apply(
    tasks: Tasks = None,
    setup: Annotated[
        str | None, typer.Option(help="Module to run first, as `python -m` does.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before steps that lose something.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Skip steps that lose something.")] = False,
) -> None:
    """Apply the consumers, endpoints, queue limits and schedules that code and triggerkit.toml
    declare."""
    if setup is not None:
        _run_module(setup)
    settings = Settings.load()
    declarations, runs = load_all_declarations(Project.load(tasks=tasks))
    may_lose = yes or (not keep and _consented(settings, declarations))
    for line in asyncio.run(_apply(settings, declarations, runs, may_lose)):
        print(line)


async def _plan(settings: Settings, declarations: Declarations) -> Plan:
    async with (
        await connect(settings.source_dsn, "triggerkit plan") as source,
        await connect(settings.state_dsn, "triggerkit plan") as state,
    ):
        return await plan_declarations(
            source,
            state,
            declarations,
            CaptureNames.of(settings),
            public_url=settings.public_url,
            keyring=Keyring(settings.encryption_keys),
        )


async def _plan_runs(settings: Settings, runs: DeclaredRuns) -> list[RunStep]:
    async with await connect(settings.state_dsn, "triggerkit plan") as state:
        return await plan_runs(state, runs)


async def _apply(
    settings: Settings, declarations: Declarations, runs: DeclaredRuns, may_lose: bool
) -> list[str]:
    async with (
        await connect(settings.source_dsn, "triggerkit apply") as source,
        await connect(settings.state_dsn, "triggerkit apply") as state,
    ):
        await require_own_session(state, settings.state_dsn)
        migrated = [f"applied migration {m.version}: {m.name}" for m in await migrate(state)]
        done = await apply_declarations(
            source,
            state,
            declarations,
            settings.public_url,
            keyring=Keyring(settings.encryption_keys),
            may_lose=may_lose,
            names=CaptureNames.of(settings),
        )
        return migrated + done + [step.done for step in await apply_runs(state, runs)]


def _consented(settings: Settings, declarations: Declarations) -> bool:
    """Return whether steps that lose something may be made; asks when there are some.

    Raises:
        TriggerkitError: nobody is there to be asked.
    """
    planned = asyncio.run(_plan(settings, declarations))
    if not planned.losing:
        return False
    _print(planned)
    if not sys.stdin.isatty():
        raise TriggerkitError(
            "nothing was changed: some steps would lose something; run with --yes to apply "
            "them, or with --keep to skip them"
        )
    return typer.confirm("Apply all of it?", abort=True)


def _print(planned: Plan, of_runs: Sequence[RunStep] = ()) -> None:
    steps: list[Preparation | PlanStep | RunStep] = [
        *planned.preparations,
        *planned.steps,
        *of_runs,
    ]
    for step in steps:
        _print_step(step)
    for warning in planned.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}")
    if not steps:
        console.print("nothing to change")


def _print_step(step: Preparation | PlanStep | RunStep) -> None:
    color = _COLORS.get(step.verb, "cyan")
    first, *rest = str(step).splitlines()
    console.print(f"[{color}]{step.verb}[/]{escape(first.removeprefix(step.verb))}")
    for line in rest:
        console.print(line, markup=False)


def _as_json(planned: Plan, of_runs: Sequence[RunStep]) -> dict[str, object]:
    steps: list[dict[str, object]] = [
        {"verb": p.verb, p.kind: p.name, "details": p.details, "loses": p.loses}
        for p in planned.preparations
    ]
    steps += [
        {"verb": s.verb, "consumer": s.name, "details": s.details, "loses": s.loses}
        for s in planned.steps
    ]
    steps += [
        {"verb": s.verb, s.kind: s.name, "details": s.details, "loses": None} for s in of_runs
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
