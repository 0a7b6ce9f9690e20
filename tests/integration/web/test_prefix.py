"""Behind a proxy all of `serve` is below the path of the public URL, cut off by it or not."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.integration.serving import AUTHORIZED, message, serving
from tests.integration.web.api.described import KEY
from tests.integration.web.dashboard.visitor import keyed
from triggerkit import Change, rows, task
from triggerkit.settings import Settings
from triggerkit.web.application import Application

BEARER = {"authorization": f"Bearer {KEY}"}


@task(name="follow", on=rows("public.posts"))
def follow(change: Change[dict[str, Any]]) -> None: ...


async def hello(request: Request) -> Response:
    return JSONResponse({"root": request.scope["root_path"], "url": request.url.path})


def behind(settings: Settings, path: str) -> Application:
    """An application whose public URL has a path, with an app of the project's."""
    given = keyed(settings, TRIGGERKIT_PUBLIC_URL=f"https://tasks.example.com{path}")
    return Application(given, [follow], Starlette(routes=[Route("/hello", hello)]))


@pytest.mark.parametrize("prefix", ["/a%20b", "/api", "/api/v1", "/dashboard", "/healthz"])
@pytest.mark.parametrize("is_cut_off", [True, False])
def test_every_part_is_found(settings: Settings, prefix: str, is_cut_off: bool) -> None:
    at = "" if is_cut_off else prefix
    with serving(behind(settings, prefix)) as site:

        def get(path: str, **headers: str) -> int:
            return site.request("GET", f"{at}{path}", headers={**BEARER, **headers}).status

        assert [get(path) for path in ("/healthz", "/readyz", "/metrics")] == [200] * 3
        assert [get(f"/api/v1/{name}") for name in ("queues", "runs", "openapi.json")] == [200] * 3
        assert get("/api/v1/consumers/none") == 404
        assert get("/kafka/topics") in (200, 401)
        host = {"host": "tasks.example.com"}
        assert get("/dashboard/login", **host) == 200
        taken = site.post(f"{at}{follow.path}", message(1), AUTHORIZED)
        assert (taken.status, taken.json["task"]) == (200, "follow")


@pytest.mark.parametrize("prefix", ["/a%20b", "/api"])
def test_the_projects_app_is_below_it_too_and_knows_it(settings: Settings, prefix: str) -> None:
    with serving(behind(settings, prefix)) as site:
        decoded = prefix.replace("%20", " ")
        found = site.request("GET", f"{prefix}/hello").json
        assert found["root"] == decoded
        assert site.request("GET", "/hello").json["root"] == ""
        assert site.request("GET", f"{prefix}/nothing").status == 404
        assert site.request("GET", f"{prefix}x/hello").status == 404
