"""The app's own lifespan is run whatever the app is wrapped in; its state is in each request."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from triggerkit.errors import ConfigurationError
from triggerkit.web.lifespan import lifespan_of


def starlette(seen: list[str]) -> Starlette:
    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        seen.append("started")
        yield {"pool": "a pool"}
        seen.append("stopped")

    async def answer(request: Request) -> JSONResponse:
        return JSONResponse(request.state.pool)

    return Starlette(routes=[Route("/", answer)], lifespan=lifespan)


def served(app: ASGIApp) -> Starlette:
    """The app behind another one, as `serve` has it."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[Any]:
        async with lifespan_of(app) as state:
            yield state or None

    return Starlette(routes=[Mount("/", app=app)], lifespan=lifespan)


class Plain:
    """A middleware as people write them: it knows nothing of its app."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


@pytest.mark.parametrize("wrap", [lambda app: app, CORSMiddleware, Plain])
def test_an_app_starts_has_its_state_and_stops(wrap: Any) -> None:
    seen: list[str] = []
    with TestClient(served(wrap(starlette(seen)))) as client:
        assert client.get("/").json() == "a pool"
        assert seen == ["started"]
    assert seen == ["started", "stopped"]


async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await JSONResponse("fine")(scope, receive, send)


async def ignores(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await JSONResponse("fine")(scope, receive, send)


@pytest.mark.parametrize("app", [refuses, ignores])
def test_an_app_without_a_lifespan_is_served(app: ASGIApp) -> None:
    with TestClient(served(app)) as client:
        assert client.get("/").json() == "fine"


def test_what_the_start_of_an_app_raises_ends_ours() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no license")
        yield

    with (
        pytest.raises(RuntimeError, match="no license"),
        TestClient(served(Starlette(lifespan=lifespan))),
    ):
        pass


def test_an_app_that_says_that_it_cannot_start_is_believed() -> None:
    async def unable(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no license"})

    with pytest.raises(ConfigurationError, match="no license"), TestClient(served(unable)):
        pass
