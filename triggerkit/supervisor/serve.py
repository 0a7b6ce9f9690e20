"""The `serve` process: uvicorn with our application."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn

from triggerkit.consumers.declare.declaration import Declared
from triggerkit.delivery.http.network import is_loopback
from triggerkit.errors import ConfigurationError, PreflightFailed
from triggerkit.project import Project
from triggerkit.runs.client import installation
from triggerkit.settings import Settings
from triggerkit.supervisor.checks import Check, run_checks
from triggerkit.supervisor.declarations import load_declarations
from triggerkit.supervisor.health import database_health
from triggerkit.supervisor.loading import load_project
from triggerkit.supervisor.logs import keep_own_loggers
from triggerkit.supervisor.losses import watch_connections
from triggerkit.supervisor.status import read_overview
from triggerkit.web.application import Application
from triggerkit.web.dashboard.page import Looks
from triggerkit.web.protocol import BoundedProtocol


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        PreflightFailed: the port is in use, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP's: of no others asyncio sends small writes at once, and answers take 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise PreflightFailed(
            f"cannot listen on {host}:{port}: {error.strerror or error}; stop the program that "
            "uses the port, or choose another with TRIGGERKIT_PORT or --port"
        ) from error
    listener.set_inheritable(True)
    return listener


class _NotifyingServer(uvicorn.Server):
    """Calls back once it accepts requests."""

    def __init__(
        self, config: uvicorn.Config, application: Application, ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._application = application
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._application.stop_waiting()
        await super().shutdown(sockets)


def looks_by(declared: Callable[[], Sequence[Declared]]) -> Looks:
    """Return what the dashboard looks at by the checks and the status; `declared` loads the
    consumers that the project declares."""

    async def checks(settings: Settings) -> list[Check]:
        return await run_checks(settings, declared())

    return Looks(read_overview, checks)


def server_config(application: Any, settings: Settings) -> uvicorn.Config:
    """Return how uvicorn serves the application."""
    return uvicorn.Config(
        application,
        loop="uvloop",
        http=BoundedProtocol,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        # Without a proxy, whoever asks could name any address as their own.
        proxy_headers=settings.triggerkit_public_url is not None,
        timeout_graceful_shutdown=5,
    )


async def run_serve(
    settings: Settings, project: Project, listener: socket.socket, ready: Callable[[], None]
) -> None:
    """Serve until a signal ends it.

    Raises:
        ConfigurationError: no webhook secret is set; the message names the setting.
    """
    _ = settings.webhook_secrets
    host = listener.getsockname()[0]
    if not is_loopback(host) and settings.triggerkit_secret_key is None:
        raise ConfigurationError(
            f"refusing to listen on {host} without TRIGGERKIT_SECRET_KEY: set it to a secret of "
            "24 characters or more, or listen on 127.0.0.1"
        )
    tasks, app = load_project(project)
    keep_own_loggers()
    looks = looks_by(lambda: load_declarations(project).consumers)
    application = Application(settings, tasks.values(), app, database_health, looks)
    config = server_config(application, settings)
    # Known before the application starts, whose own errors are told as a traceback.
    await installation(settings)
    watch_connections(settings)
    server = _NotifyingServer(config, application, ready)
    await server.serve(sockets=[listener])
    if not server.started:
        raise PreflightFailed("the application did not start; its error is above")
