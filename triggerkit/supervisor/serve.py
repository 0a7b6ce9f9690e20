"""The `serve` process: uvicorn with our application."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn

from triggerkit.compat.routes import compat_routes
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.delivery.http.network import is_loopback
from triggerkit.errors import ConfigurationError, PreflightFailed
from triggerkit.project import Project
from triggerkit.runs.client import installation
from triggerkit.settings import Settings
from triggerkit.supervisor.alerts.sender import keep_alerting
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

#: Seconds that requests under way have when the process is asked to end, unless it is set.
GRACE_S = 5.0

#: Seconds between two looks for a second signal, while requests are still taken.
DRAIN_LOOK_S = 0.1


class _NotifyingServer(uvicorn.Server):
    """Calls back once it accepts requests."""

    def __init__(
        self,
        config: uvicorn.Config,
        application: Application,
        ready: Callable[[], None],
        drain_s: float,
    ) -> None:
        super().__init__(config)
        self._drain_s = drain_s
        self._application = application
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._application.begin_to_stop()
        await self._drain()
        self._application.stop_waiting()
        await super().shutdown(sockets)
        # Else uvicorn ends the process by them once more, though it has ended well.
        self._captured_signals.clear()

    async def _drain(self) -> None:
        """Go on taking requests until load balancers have seen that this process is about to
        end."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._drain_s
        while not self.force_exit and (left_s := until - loop.time()) > 0:  # noqa: ASYNC110 - uvicorn's
            await asyncio.sleep(min(DRAIN_LOOK_S, left_s))


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
        timeout_graceful_shutdown=math.ceil(settings.grace_s or GRACE_S),
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
    application = Application(settings, tasks.values(), app, database_health, looks, compat_routes)
    config = server_config(application, settings)
    # Known before the application starts, whose own errors are told as a traceback.
    await installation(settings)
    watch_connections(settings)
    server = _NotifyingServer(config, application, ready, settings.drain_s)
    alerting = asyncio.create_task(keep_alerting(settings), name="alerts")
    try:
        await server.serve(sockets=[listener])
    finally:
        alerting.cancel()
    if not server.started:
        raise PreflightFailed("the application did not start; its error is above")
