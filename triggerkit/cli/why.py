"""The command `why`: why a row has no effect, and what helps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

import orjson
import typer

from triggerkit.cli.options import App, Json, Tasks
from triggerkit.errors import TriggerkitError
from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.state.connect import pool
from triggerkit.tasks.registry import load_tasks
from triggerkit.tasks.task import Task
from triggerkit.terminal.console import TerminalConsole
from triggerkit.why.answer import DONE, UNDER_WAY, Answer, Step
from triggerkit.why.ask import Question, ask

console = TerminalConsole(highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("why")(why_command)


def why_command(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="schema.table; or a run's id, a position in the log, an idempotency key.",
        ),
    ],
    key: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="The row's primary key, a value for each column."),
    ] = None,
    consumer: Annotated[str | None, typer.Option("--consumer", help="Only this consumer.")] = None,
    app: App = None,
    tasks: Tasks = None,
    json: Json = False,
) -> None:
    """Say why a row has no effect, with the remedy and what happened, newest first."""
    question = Question.of([table, *(key or ())], consumer)
    project = Project.load(app=app, tasks=tasks)
    project.make_importable()
    answer = asyncio.run(_answer(Settings.load(), _tasks(project), question))
    if json:
        print(orjson.dumps(answer).decode())
        return
    for line in _lines(answer):
        console.print(line, markup=False)


async def _answer(
    settings: Settings, tasks: list[Task[Any, Any, Any]], question: Question
) -> Answer:
    async with pool(settings.state_dsn, "triggerkit why", size=3) as states:
        return await ask(states, settings, tasks, question)


def _tasks(project: Project) -> list[Task[Any, Any, Any]]:
    """Return the project's tasks; none where they cannot be imported, which is no answer here."""
    try:
        return list(load_tasks(project).values())
    except TriggerkitError as error:
        console.print(f"warning: the tasks are not known: {error}", markup=False)
        return []


def _lines(answer: Answer) -> Iterator[str]:
    mark = "✓" if answer.code in DONE else "…" if answer.code in UNDER_WAY else "✗"
    yield f"{mark} {answer.subject.text}: {answer.conclusion}"
    if answer.remedy is not None:
        yield f"    mend it with: {answer.remedy}"
    for step in answer.steps:
        yield f"  {_step(step)}"
    if answer.searched_from is not None:
        yield f"  looked through the log from position {answer.searched_from:,} on"


def _step(step: Step) -> str:
    at = " " * 23 if step.at is None else f"{step.at:%Y-%m-%d %H:%M:%S} UTC"
    who = "" if step.consumer is None else f"{step.consumer}: "
    what = step.what if step.run is None else f"{step.run} {step.what.removeprefix('run ')}"
    where = ""
    if step.position is not None and step.consumer is None:
        where = f" (position {step.position:,})"
    detail = "" if step.detail is None else f": {step.detail}"
    return f"{at}  {who}{what}{where}{detail}"
