"""Run the command `dev`, once its fork server is started."""

from __future__ import annotations

import asyncio

from triggerkit.errors import TriggerkitError
from triggerkit.project import Project
from triggerkit.settings import own_environment
from triggerkit.supervisor.dev.console import JsonConsole, TextConsole
from triggerkit.supervisor.dev.forks import ForkServer
from triggerkit.supervisor.dev.supervisor import run_dev


def develop(
    forks: ForkServer | None,
    *,
    app: str | None,
    tasks: list[str] | None,
    host: str | None,
    port: int | None,
    json: bool,
    quiet: bool,
) -> None:
    """Run `dev` with what its command line says.

    Raises:
        TriggerkitError: it cannot start; the message names the remedy.
    """
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
        asyncio.run(run_dev(project, environment, console, forks))
    except TriggerkitError as error:
        if json:
            console.problem(str(error))
        raise
