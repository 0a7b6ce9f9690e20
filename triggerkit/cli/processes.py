"""Commands that run: dev, serve, stream, worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from triggerkit import failpoints
from triggerkit.cli.options import App, Host, Json, Port, Quiet, Tasks
from triggerkit.embedded import lifeline
from triggerkit.settings import Project, Settings, own_environment
from triggerkit.supervisor.console import JsonConsole, TextConsole
from triggerkit.supervisor.dev import run_dev
from triggerkit.supervisor.logs import announce, configure, is_child
from triggerkit.supervisor.serve import listen, run_serve
from triggerkit.supervisor.stream import run_stream
from triggerkit.supervisor.worker import run_child, run_worker


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (dev, serve, stream, worker):
        app.command()(command)


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
    console = JsonConsole() if json else TextConsole(quiet=quiet)
    asyncio.run(run_dev(project, environment, console))


def serve(
    app: App = None,
    tasks: Tasks = None,
    host: Host = None,
    port: Port = None,
    fd: Annotated[int | None, typer.Option(help="An inherited listening socket.")] = None,
) -> None:
    """Serve the webhook routes and the app."""
    settings = _start(host=host, port=port)
    listener = (
        socket.socket(fileno=fd)
        if fd is not None
        else listen(settings.triggerkit_host, settings.triggerkit_port)
    )
    project = Project.load(app=app, tasks=tasks)
    uvloop.run(run_serve(settings, project, listener, lambda: announce("ready")))


def stream() -> None:
    """Capture changes into the log and deliver them to the consumers."""
    settings = _start()
    uvloop.run(_until_signal(run_stream(settings, lambda: announce("ready"))))


def worker(
    tasks: Tasks = None,
    processes: Annotated[
        int, typer.Option(envvar="TRIGGERKIT_PROCESSES", min=1, max=256, help="Child processes.")
    ] = 1,
    threads: Annotated[
        int, typer.Option(envvar="TRIGGERKIT_THREADS", min=1, max=1024, help="Runs at a time each.")
    ] = 8,
    queue: Annotated[
        list[str] | None, typer.Option("--queue", help="Only this queue; repeatable.")
    ] = None,
    child: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Execute runs of the project's tasks."""
    settings = _start()
    project = Project.load(tasks=tasks)
    if child:
        run_child(settings, project, threads=threads, queues=queue)
        return
    code = run_worker(
        settings,
        project,
        processes=processes,
        threads=threads,
        queues=queue,
        ready=lambda: announce("ready"),
    )
    raise typer.Exit(code)


def _start(*, host: str | None = None, port: int | None = None) -> Settings:
    """What every long-running process does first."""
    lifeline.watch()
    failpoints.arm(os.environ)
    configure(json_lines=is_child())
    settings = Settings.load(Path.cwd())
    changed: dict[str, Any] = {}
    if host is not None:
        changed["triggerkit_host"] = host
    if port is not None:
        changed["triggerkit_port"] = port
    return settings.model_copy(update=changed)


async def _until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends or a signal cancels it."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
