"""The ASGI application of `serve`: our routes first, then the user's app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import psycopg
from psycopg_pool import PoolTimeout
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from triggerkit.runs.client import Client
from triggerkit.runs.transport.base import TransportAway
from triggerkit.settings import Settings
from triggerkit.tasks.task import Task
from triggerkit.web.api.management import Api
from triggerkit.web.api.operation import DatabaseHealthOf
from triggerkit.web.api.pull import PullApi
from triggerkit.web.bulk.worker import BulkWorker
from triggerkit.web.dashboard.page import Looks
from triggerkit.web.dashboard.site import PREFIX, Dashboard
from triggerkit.web.kafka.site import KafkaApi
from triggerkit.web.lifespan import lifespan_of
from triggerkit.web.metrics import Metrics
from triggerkit.web.tunnel.site import TunnelSite
from triggerkit.web.webhook import CLIENT_SCOPE_KEY, webhook

#: Seconds in which what is open is closed at the end.
CLOSE_S = 5.0

Tasks = Sequence[Task[Any, Any, Any]]

#: Makes the routes of the layers above, of the tasks and what serves the pulled consumers.
OtherRoutes = Callable[[Tasks, PullApi], Sequence[BaseRoute]]


class Application:
    """Serves the webhook routes of tasks with `on=`, health, and everything else by the app."""

    def __init__(
        self,
        settings: Settings,
        tasks: Iterable[Task[Any, Any, Any]],
        user_app: ASGIApp | None,
        database_health: DatabaseHealthOf | None = None,
        looks: Looks = Looks(),  # noqa: B008 - immutable
        others: OtherRoutes = lambda _tasks, _pull: (),
    ) -> None:
        self._settings = settings
        self._user_app = user_app
        self._prefix = unquote(urlsplit(settings.public_url).path).rstrip("/")
        self._client: Client | None = None
        self._is_stopping = False
        self._pull = PullApi()
        self._kafka = KafkaApi()
        self._tunnels = TunnelSite()
        known = list(tasks)
        self._bulks = BulkWorker(known)
        self._dashboard = Dashboard(known, looks, database_health, self._kafka.view_of)
        self._own: list[BaseRoute] = [
            Route("/healthz", _healthz),
            Route("/readyz", self._readyz),
            Route("/metrics", Metrics(settings).answer),
            *(webhook(task.path, task=task) for task in known if task.has_route),
            self._tunnels.route,
            Api(known, self._pull.routes, database_health),
            *self._kafka.routes,
            *others(known, self._pull),
            Route(PREFIX, _to_dashboard),
            self._dashboard,
        ]
        routes = self._own if user_app is None else [*self._own, Mount("/", app=user_app)]
        self._app = Starlette(routes=routes, lifespan=self._lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with the open client in its scope."""
        if scope["type"] != "lifespan":
            scope = self._placed(scope)
            scope[CLIENT_SCOPE_KEY] = self._client
        await self._app(scope, receive, send)

    def _placed(self, scope: Scope) -> Scope:
        """Return a request as one below the path of the public URL, where a proxy left that in; the
        dashboard's, whose pages have links, also where it was cut off."""
        path, prefix = scope["path"], self._prefix
        if not prefix or scope.get("root_path"):
            return scope
        if path.startswith(f"{prefix}/"):
            # Cut off or not, a path of ours may begin with it, such as /api.
            below = path.removeprefix(prefix)
            if self._is_own(below) or not self._is_own(path):
                return {**scope, "root_path": prefix}
        if _is_dashboard(path):
            return {**scope, "root_path": prefix, "path": f"{prefix}{path}"}
        return scope

    def _is_own(self, path: str) -> bool:
        scope = {"type": "http", "method": "GET", "path": path}
        return any(route.matches(scope)[0] is not Match.NONE for route in self._own)

    def begin_to_stop(self) -> None:
        """Say at `/readyz` that the process is about to end, so that nothing more is sent to it."""
        self._is_stopping = True

    def stop_waiting(self) -> None:
        """Answer the requests that wait for something, as the process is about to end."""
        self._pull.stop_waiting()
        self._kafka.stop_waiting()
        self._dashboard.stop_waiting()
        self._tunnels.stop_waiting()

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[Any]:  # noqa: ARG002
        async with _closed_in_time() as stack:
            self._client = await Client.open(self._settings)
            stack.push_async_callback(self._client.close)
            await stack.enter_async_context(self._bulks.working(self._client))
            stack.push_async_callback(self._pull.close)
            stack.push_async_callback(self._kafka.close)
            stack.push_async_callback(self._dashboard.close)
            stack.push_async_callback(self._tunnels.close)
            if self._user_app is None:
                # None where there is no state: not each server has a place for it.
                yield None
                return
            async with lifespan_of(self._user_app) as state:
                yield state or None

    async def _readyz(self, request: Request) -> Response:  # noqa: ARG002
        missing = await self._missing()
        body = {"ready": not missing, "missing": missing}
        return JSONResponse(body, status_code=503 if missing else 200)

    async def _missing(self) -> list[str]:
        client = self._client
        if client is None:
            return ["startup"]
        missing = ["stopping"] if self._is_stopping else []
        try:
            async with client.pool.connection(timeout=2) as connection:
                await connection.execute("SELECT 1")
        except (psycopg.Error, PoolTimeout):
            missing.append("postgres")
        try:
            await client.transport.check()
        except TransportAway:
            missing.append(client.transport.name)
        return missing


@asynccontextmanager
async def _closed_in_time() -> AsyncIterator[AsyncExitStack]:
    """Close at the end what was entered, for no longer than `CLOSE_S`: a server that answers
    nothing would hold the end of this process up."""
    stack = AsyncExitStack()
    try:
        yield stack
    finally:
        closing = asyncio.create_task(stack.aclose(), name="closing")
        done, _ = await asyncio.wait({closing}, timeout=CLOSE_S)
        if done:
            closing.result()


async def _healthz(request: Request) -> Response:  # noqa: ARG001
    return JSONResponse({"alive": True})


async def _to_dashboard(request: Request) -> Response:
    return RedirectResponse(f"{quote(request.scope.get('root_path', ''))}{PREFIX}/", 307)


def _is_dashboard(path: str) -> bool:
    return path == PREFIX or path.startswith(f"{PREFIX}/")
