"""The command `dev`."""

from __future__ import annotations

import asyncio

import typer

from triggerkit.cli.options import App, Host, Json, Port, Quiet, Tasks
from triggerkit.errors import TriggerkitError
from triggerkit.settings import Project, own_environment
from triggerkit.supervisor.console import JsonConsole, TextConsole
from triggerkit.supervisor.dev import run_dev


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(dev)


def dev(
    app: App = None,
    tasks: Tasks = None,
    host: Host = None,
    port: Port = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run everything: servers that are not set are brought along, changes run their tasks."""
    project = Project.load(app=app, tasks=tasks)
    environment = own_environment(project.folder)
    if host is not None:
        environment["TRIGGERKIT_HOST"] = host
    if port is not None:
        environment["TRIGGERKIT_PORT"] = str(port)
    if project.app is not None:
        environment["TRIGGERKIT_APP"] = project.app
    console = JsonConsole(quiet=quiet) if json else TextConsole(quiet=quiet)
    try:
        asyncio.run(run_dev(project, environment, console))
    except TriggerkitError as error:
        if json:
            console.problem(str(error))
        raise
