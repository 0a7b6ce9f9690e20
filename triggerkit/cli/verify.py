"""The command `verify`: whether each row has its effect, and none is without its row."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape

from triggerkit.cli.options import Json, Tasks
from triggerkit.errors import ConfigurationError, UnknownTask, unknown_name
from triggerkit.project import Project
from triggerkit.runs.client import Client
from triggerkit.settings import Settings
from triggerkit.supervisor.verify.compare import PROBLEMS, Verifiable, verifiable
from triggerkit.supervisor.verify.verify import Fixed, Verification, fix, verify
from triggerkit.tasks.registry import load_tasks
from triggerkit.terminal.console import TerminalConsole, counted

#: The exit code when nothing is wrong, and something is still on its way.
NOT_FINISHED = 5

console = TerminalConsole(highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("verify")(verify_command)


def verify_command(
    task: Annotated[
        str | None, typer.Argument(help="Only this task; the default is every task with verify=.")
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Trigger the task for rows that are out of step.")
    ] = False,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Maximum seconds that --fix waits for its runs.")
    ] = 60.0,
    limit: Annotated[int, typer.Option(min=0, max=100_000, help="Maximum rows to print.")] = 20,
    tasks: Tasks = None,
    json: Json = False,
) -> None:
    """Find rows whose effect is missing or stale, and effects without a row."""
    found = _chosen(Project.load(tasks=tasks), task)
    answers = asyncio.run(_answers(Settings.load(), found, limit, wait if fix else None))
    if json:
        print(orjson.dumps([_as_json(answer) for answer in answers]).decode())
    else:
        for answer in answers:
            for line in _lines(answer):
                console.print(line)
    if not all(_last(answer).is_true for answer in answers):
        raise typer.Exit(1)
    if not all(_last(answer).is_finished for answer in answers):
        raise typer.Exit(NOT_FINISHED)


def _chosen(project: Project, name: str | None) -> list[Verifiable]:
    known = load_tasks(project)
    if name is not None:
        if name not in known:
            raise UnknownTask(unknown_name("task", name, sorted(known)))
        return [verifiable(known[name])]
    chosen = [verifiable(task) for task in known.values() if task.verify is not None]
    if not chosen:
        raise ConfigurationError(
            "no task declares its effects; add @task(verify=...) to one, see docs/verify.md"
        )
    return chosen


async def _answers(
    settings: Settings, chosen: list[Verifiable], limit: int, wait_s: float | None
) -> list[Verification | Fixed]:
    client = await Client.open(settings)
    try:
        if wait_s is None:
            return [await verify(settings, client, found, limit) for found in chosen]
        return [await fix(settings, client, found, limit, wait_s) for found in chosen]
    finally:
        await client.close()


def _last(answer: Verification | Fixed) -> Verification:
    return answer.after if isinstance(answer, Fixed) else answer


def _as_json(answer: Verification | Fixed) -> dict[str, Any]:
    if isinstance(answer, Verification):
        return answer.as_json()
    repair = answer.repair
    fixed = {"rows": repair.triggered, "runs": len(repair.run_ids), "refused": repair.refused}
    return {**answer.after.as_json(), "before": answer.before.as_json(), "fixed": fixed}


def _lines(answer: Verification | Fixed) -> Iterator[str]:
    if isinstance(answer, Verification):
        yield from _of_look(answer)
        return
    yield from _of_look(answer.before)
    repair = answer.repair
    if repair.refused:
        refusal = escape(repair.refusal or "")
        do = "does" if repair.refused == 1 else "do"
        rows = counted(repair.refused, "row")
        yield f"  {rows} {do} not fit the task's type: {refusal}"
    if repair.run_ids:
        runs, rows = counted(len(repair.run_ids), "run"), counted(repair.triggered, "row")
        yield f"triggered {runs} for {rows}"
        if not answer.is_over:
            yield "  not all of them have ended yet; is a worker running? Look again later"
        yield from _of_look(answer.after)


def _of_look(found: Verification) -> Iterator[str]:
    mark = "[red]✗[/]"
    if found.is_true:
        mark = "[green]✓[/]" if found.is_finished else "[yellow]…[/]"
    counts = [f"{found.in_step:,} in step"]
    counts += [f"{found.problems[p]:,} {p}" for p in PROBLEMS if found.problems[p]]
    if found.parked:
        counts.append(f"{found.parked:,} of them parked")
    if found.empty:
        counts.append(f"{found.empty:,} empty")
    if found.pending:
        counts.append(f"{found.pending:,} pending (oldest {found.pending_s or 0:.0f} s)")
    rows = f"{found.rows:,} {'row' if found.rows == 1 else 'rows'} of {escape(found.table)}"
    yield f"{mark} {escape(found.task)}: {rows}, {', '.join(counts)}"
    for row in found.listed:
        yield f"    {row.problem:<8}  {escape(', '.join(row.key))}"
    more = found.problems.total() - len(found.listed)
    if more and found.listed:
        yield f"    and {more:,} more"
    yield from _of_way(found)


def _of_way(found: Verification) -> Iterator[str]:
    way = found.under_way
    facts = []
    if way.messages:
        facts.append(f"changes of {counted(way.messages, 'row')} to deliver")
    if way.runs:
        facts.append(counted(way.runs, "unfinished run"))
    if way.backfill:
        facts.append("a backfill")
    if found.parked:
        yield "    why a parked one is: triggerkit messages list"
    if facts:
        yield f"    under way: {', '.join(facts)}"
