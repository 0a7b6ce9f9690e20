"""`trigger`: makes a run of a task by hand."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer

from triggerkit.cli.options import Tasks
from triggerkit.cli.run_client import json_given, print_json
from triggerkit.errors import UnknownTask, unknown_name
from triggerkit.project import Project
from triggerkit.runs.portal import portal
from triggerkit.tasks.registry import load_tasks
from triggerkit.tasks.triggering import Debounce, TriggerOptions


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(trigger)


def trigger(
    task: Annotated[str, typer.Argument(help="The task's name.")],
    payload: Annotated[str | None, typer.Option(help="JSON, or @file.")] = None,
    delay: Annotated[
        float | None, typer.Option(help="Seconds to wait before the run may start.")
    ] = None,
    ttl: Annotated[
        float | None, typer.Option(help="Seconds within which the run must start, or expire.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Create no second run with this key.")
    ] = None,
    idempotency_ttl: Annotated[
        float | None, typer.Option(help="Seconds to remember the key.")
    ] = None,
    debounce: Annotated[
        str | None,
        typer.Option(help="Make one run of all triggers with this key, --delay after the last."),
    ] = None,
    concurrency_key: Annotated[
        str | None, typer.Option(help="Runs with this key execute one at a time, in order.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option(help="Start as if triggered this many seconds earlier.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Another queue than the task's.")] = None,
    max_attempts: Annotated[
        int | None, typer.Option(help="Other than the task's retry has.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Tag; repeatable.")] = None,
    metadata: Annotated[str | None, typer.Option(help="JSON object, or @file.")] = None,
    tasks: Tasks = None,
) -> None:
    """Run a task with a payload; print the run's handle."""
    known = load_tasks(Project.load(tasks=tasks))
    if task not in known:
        raise UnknownTask(unknown_name("task", task, sorted(known)))
    found = known[task]
    takes_none = found.payload_type.shape == "none"
    body = json_given(payload or ("null" if takes_none else "{}"), "--payload")
    asked: dict[str, Any] = {
        "delay": None if debounce is not None else delay,
        "ttl": ttl,
        "idempotency_key": idempotency_key,
        "idempotency_ttl": idempotency_ttl,
        "debounce": None if debounce is None else Debounce(debounce, delay or 0.0),
        "concurrency_key": concurrency_key,
        "priority": priority,
        "queue": queue,
        "max_attempts": max_attempts,
        "tags": tag,
        "metadata": None if metadata is None else json_given(metadata, "--metadata"),
    }
    options = cast("TriggerOptions", {n: v for n, v in asked.items() if v is not None})
    print_json(portal.accept([found.new_run(body, options)])[0].as_json())
