"""The command `deliver`."""

from __future__ import annotations

import typer

from triggerkit.cli.options import App, Tasks
from triggerkit.cli.processes.process import ready, start, until_signal
from triggerkit.project import Project
from triggerkit.state.event_loop import run_loop
from triggerkit.supervisor.deliver import require_log_on_kafka, run_deliver
from triggerkit.supervisor.probes.process_health import ProcessHealth
from triggerkit.supervisor.probes.server import serve_probes


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(deliver)


def deliver(app: App = None, tasks: Tasks = None) -> None:
    """Deliver from a log on Kafka, beside others that do."""
    settings = start()
    require_log_on_kafka(settings)
    project = Project.load(app=app, tasks=tasks)
    # Filters and transforms of consumers are functions of the project.
    project.make_importable()
    health = ProcessHealth()
    serve_probes(settings, health)
    run_loop(until_signal(run_deliver(settings, ready, project, health), health.stop))
