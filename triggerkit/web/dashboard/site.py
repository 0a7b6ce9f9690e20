"""The dashboard as a part of `serve`: finds the page of a request, guards it, and answers."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount
from starlette.routing import Route as PathRoute
from starlette.types import Receive, Scope, Send

from triggerkit.errors import CannotConnect, TriggerkitError
from triggerkit.events.source import View
from triggerkit.runs.client import Client
from triggerkit.runs.session import by_index
from triggerkit.state.connect import Pool, pool
from triggerkit.state.faults import is_away
from triggerkit.tasks.receive.body import BodyRefused
from triggerkit.tasks.task import Task
from triggerkit.web.api.operation import POOL_TIMEOUT_S, Call, DatabaseHealthOf
from triggerkit.web.api.problems import status_of
from triggerkit.web.dashboard.files import FILES, VERSION
from triggerkit.web.dashboard.guard import HEADERS, is_own_host, is_own_origin, is_secure
from triggerkit.web.dashboard.live import Live
from triggerkit.web.dashboard.page import (
    Answer,
    Asked,
    Looks,
    Route,
    Shown,
    Streamed,
    read_form,
)
from triggerkit.web.dashboard.render import render
from triggerkit.web.dashboard.routes import routes
from triggerkit.web.dashboard.sent import SentForms
from triggerkit.web.dashboard.session import LOGIN, SESSION_S, Sessions, is_same
from triggerkit.web.webhook import CLIENT_SCOPE_KEY

logger = logging.getLogger(__name__)

PREFIX: Final = "/dashboard"

#: Connections that pages read by: a busy dashboard keeps no delivery waiting.
POOL_SIZE = 3

#: Seconds in which a page is made, and those that one of its statements may take.
PAGE_S = 15.0
STATEMENT_S = 10.0

_AWAY = "The database does not answer. Nothing is lost by that: load the page again once it does."
_COSTLY = (
    "This page took too long and was given up: narrow what it looks through, with "
    "a status, a task, or a time in the URL (since=2026-01-31T12:00:00Z)."
)
_BUSY = (
    "All connections of the dashboard are busy with other pages, which are given up after "
    f"{PAGE_S:g} s: load the page again."
)


class Dashboard(Mount):
    """All pages, under `/dashboard`."""

    def __init__(
        self,
        tasks: Iterable[Task[Any, Any, Any]],
        looks: Looks,
        database_health: DatabaseHealthOf | None = None,
        view_of: Callable[[Client, Collection[str]], Awaitable[View]] | None = None,
    ) -> None:
        self._view_of = view_of
        self._tasks = tuple(tasks)
        self._looks = looks
        self._database_health = database_health
        self._pool: Any = None
        self._live = Live()
        self.sent = SentForms()
        known = [
            PathRoute(route.path, _Page(self, route)) for route in (*routes(), *self._live.routes)
        ]
        files = [PathRoute(f"/static/{VERSION}/{file.name}", file.answer) for file in FILES]
        nothing = PathRoute("/{rest:path}", _Page(self, Route("")))
        super().__init__(PREFIX, routes=[*files, *known, nothing])

    def stop_waiting(self) -> None:
        """End what pages listen to, as the process is about to end."""
        self._live.stop()

    async def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            await self._pool.close()

    async def asked(self, request: Request) -> Asked:
        """Return a request with what its page works with; the first one opens the pool."""
        client: Client = request.scope[CLIENT_SCOPE_KEY]
        if self._pool is None:
            dsn = by_index(client.settings.state_dsn)
            self._pool = pool(
                dsn,
                "triggerkit dashboard",
                size=POOL_SIZE,
                statement_s=STATEMENT_S,
                wait_s=POOL_TIMEOUT_S,
                is_checked=True,
            )
            await self._pool.open()
        view_of = None if self._view_of is None else partial(self._view_of, client)
        own = replace(client, pool=self._pool)
        call = Call(own, self._tasks, self._database_health, view_of)
        sessions = Sessions.of(client.settings)
        session = None if sessions is None else sessions.of_browser(request.cookies)
        base = quote(request.scope.get("root_path", ""))
        return Asked(request, call, base, sessions, session, self._looks)


class _Page:
    """Answers the requests for one path."""

    def __init__(self, dashboard: Dashboard, route: Route) -> None:
        self._dashboard = dashboard
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive)
        asked = await self._dashboard.asked(request)
        response = await self._answer(asked)
        response.headers.update(HEADERS)
        await response(scope, receive, send)

    async def _answer(self, asked: Asked) -> Response:
        request, settings = asked.request, asked.call.settings
        if not is_own_host(request, settings):
            text = "The dashboard is not known by this host: set TRIGGERKIT_PUBLIC_URL to its URL."
            return _refusal(replace(asked, session=None), 421, text)
        if asked.session is None and not self._route.is_open:
            is_page = request.method in ("GET", "HEAD") and asked.here != "/"
            following = {"next": asked.here} if is_page else {}
            return RedirectResponse(asked.link(LOGIN[1:], **following), 303)
        try:
            async with asyncio.timeout(PAGE_S):
                return await self._made(asked)
        except Exception as error:
            return _failed(asked, error)

    async def _made(self, asked: Asked) -> Response:
        method = asked.request.method
        if method in ("GET", "HEAD") and self._route.get is not None:
            return _response(asked, await self._route.get(asked))
        if not self._route.methods:
            return _refusal(asked, 404, "There is no such page.")
        if method != "POST" or self._route.post is None:
            response = _refusal(asked, 405, "This page cannot be asked for in that way.")
            response.headers["allow"] = ", ".join(self._route.methods)
            return response
        if not is_own_origin(asked.request, asked.call.settings):
            return _refusal(
                asked,
                403,
                "This was not asked for by a page of this dashboard, or the browser does not say "
                "so: open it by HTTPS, or on the machine itself, and try again.",
            )
        asked = replace(asked, form=await read_form(asked.request))
        session = None if self._route.is_open else asked.session
        if session is not None and not is_same(asked.form.get("csrf", ""), session.csrf):
            return _refusal(asked, 403, "This form is of another login: load its page again.")
        if session is not None and not session.may_change and not self._route.is_of_readers:
            return _refusal(
                asked,
                403,
                "This login may only look: log in with TRIGGERKIT_SECRET_KEY to change something.",
            )
        return _response(asked, await self._dashboard.sent.answered(asked, self._route.post))


def _response(asked: Asked, found: Answer) -> Response:
    if isinstance(found, Streamed):
        return StreamingResponse(found.events, media_type="text/event-stream")
    if isinstance(found, Shown):
        return HTMLResponse(render(asked, found), found.status)
    response = RedirectResponse(found.to, 303)
    if found.cookie is not None and asked.sessions is not None:
        response.set_cookie(
            asked.sessions.cookie,
            found.cookie,
            max_age=SESSION_S if found.cookie else 0,
            path=asked.base,
            secure=is_secure(asked.request, asked.call.settings),
            httponly=True,
            samesite="strict",
        )
    return response


def _refusal(asked: Asked, status: int, text: str) -> Response:
    page = Shown("problem.html", f"{status}", {"status": status, "text": text}, status)
    response = HTMLResponse(render(asked, page), status)
    if status == 503:
        response.headers["retry-after"] = "1"
    return response


def _failed(asked: Asked, error: Exception) -> Response:
    """Return the page that says what went wrong, without a value of a row."""
    if isinstance(error, BodyRefused):
        return _refusal(asked, error.status, error.error)
    if isinstance(error, ValidationError):
        fields = ", ".join(".".join(map(str, one["loc"])) for one in error.errors()) or "the URL"
        return _refusal(asked, 422, f"What is asked for cannot be read: {fields}.")
    if isinstance(error, TimeoutError | psycopg.errors.QueryCanceled):
        return _refusal(asked, 503, _COSTLY)
    if isinstance(error, PoolTimeout) and _is_lent(asked.call.client.pool):
        return _refusal(asked, 503, _BUSY)
    if isinstance(error, PoolTimeout | CannotConnect) or is_away(error):
        return _refusal(asked, 503, _AWAY)
    if isinstance(error, TriggerkitError):
        return _refusal(asked, status_of(error), str(error))
    if isinstance(error, psycopg.IntegrityError | psycopg.errors.DuplicateObject):
        return _refusal(asked, 409, "Somebody else changed it at the same time: try again.")
    if isinstance(error, psycopg.DataError):
        return _refusal(asked, 422, "What is asked for cannot be looked up: it has a wrong value.")
    frames = "".join(traceback.format_tb(error.__traceback__))
    # Without its message, which may have values.
    logger.error("a page failed with %s; please report it\n%s", type(error).__name__, frames)
    return _refusal(asked, 500, "An error that should not happen; the log of serve has it.")


def _is_lent(pool: AsyncConnectionPool) -> bool:
    """Return whether all connections that the pool may have are in use."""
    return isinstance(pool, Pool) and pool.lent >= pool.max_size
