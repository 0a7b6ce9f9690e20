"""The command `stream`."""

from __future__ import annotations

import typer

from triggerkit.cli.options import App, Tasks
from triggerkit.cli.processes.process import ready, start, until_signal
from triggerkit.project import Project
from triggerkit.state.event_loop import run_loop
from triggerkit.supervisor.probes.process_health import ProcessHealth
from triggerkit.supervisor.probes.server import serve_probes
from triggerkit.supervisor.stream import run_stream


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(stream)


def stream(app: App = None, tasks: Tasks = None) -> None:
    """Capture changes into the log, run backfills and deliver to consumers."""
    settings = start()
    project = Project.load(app=app, tasks=tasks)
    # Filters and transforms of consumers are functions of the project.
    project.make_importable()
    health = ProcessHealth()
    serve_probes(settings, health)
    run_loop(until_signal(run_stream(settings, ready, project, health), health.stop))
