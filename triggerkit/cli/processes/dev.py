"""The command `dev`."""

from __future__ import annotations

from importlib.util import find_spec

import typer

from triggerkit.cli.options import App, Host, Json, Port, Quiet, Tasks
from triggerkit.errors import ConfigurationError
from triggerkit.supervisor.dev.forks import ForkServer


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
    """Run everything for development, with the servers that are not configured."""
    if find_spec("watchfiles") is None:
        raise ConfigurationError(
            "`triggerkit dev` needs what is not installed here; install it with: "
            "pip install 'triggerkit[dev]'"
        )
    forks = ForkServer.start()
    try:
        # Imported while the fork server imports: each of them takes a second.
        from triggerkit.cli.processes.dev_project import develop

        develop(forks, app=app, tasks=tasks, host=host, port=port, json=json, quiet=quiet)
    finally:
        if forks is not None:
            forks.close()
