"""The command `worker`."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from triggerkit import lifeline
from triggerkit.cli.options import Tasks
from triggerkit.cli.processes.process import prepare, ready
from triggerkit.project import Project
from triggerkit.supervisor.crew import Sizes
from triggerkit.supervisor.worker import run_child, run_worker
from triggerkit.supervisor.workers import Forked


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(worker)


def worker(
    tasks: Tasks = None,
    processes: Annotated[
        int,
        typer.Option(
            envvar="TRIGGERKIT_PROCESSES", min=1, max=256, help="Number of child processes."
        ),
    ] = 1,
    threads: Annotated[
        int,
        typer.Option(envvar="TRIGGERKIT_THREADS", min=1, max=1024, help="Sync runs per process."),
    ] = 8,
    async_runs: Annotated[
        int,
        typer.Option(
            envvar="TRIGGERKIT_ASYNC_RUNS", min=1, max=10_000, help="Async runs per process."
        ),
    ] = 100,
    queue: Annotated[
        list[str] | None, typer.Option("--queue", help="Serve only this queue; repeatable.")
    ] = None,
    child: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Execute runs of the project's tasks."""
    settings = prepare()
    project = Project.load(tasks=tasks)
    sizes = Sizes(processes, threads, async_runs, queue)
    if not child:
        with contextlib.suppress(Forked):
            raise typer.Exit(run_worker(settings, project, sizes, ready=ready))
    lifeline.watch()
    run_child(settings, project, sizes)
