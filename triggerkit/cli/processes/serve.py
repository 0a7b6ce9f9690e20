"""The command `serve`."""

from __future__ import annotations

import socket
from typing import Annotated

import typer

from triggerkit.cli.options import App, Host, Port, Tasks
from triggerkit.cli.processes.process import ready, start
from triggerkit.project import Project
from triggerkit.state.event_loop import run_loop
from triggerkit.supervisor.probes.listening import listen
from triggerkit.supervisor.serve import run_serve


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(serve)


def serve(
    app: App = None,
    tasks: Tasks = None,
    host: Host = None,
    port: Port = None,
    fd: Annotated[int | None, typer.Option(help="Inherited listening socket.")] = None,
) -> None:
    """Serve the webhook routes, the management API and the app."""
    settings = start(host=host, port=port)
    listener = (
        socket.socket(fileno=fd)
        if fd is not None
        else listen(settings.triggerkit_host, settings.triggerkit_port)
    )
    project = Project.load(app=app, tasks=tasks)
    run_loop(run_serve(settings, project, listener, ready))
