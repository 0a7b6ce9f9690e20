"""Endpoints through the API, and what came back from one."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from tests.integration.serving import serving
from tests.integration.web.api.described import ApiSite
from tests.integration.web.api.guide import ENDPOINT, LOCAL, SECRET


def test_endpoints_are_shown_by_names_and_fingerprints_alone(site: ApiSite) -> None:
    made = site.done("POST", "/endpoints", {**ENDPOINT, "signing_secret": SECRET})
    assert (list(made["headers"]), len(made["signing"])) == (["Authorization"], 1)
    assert site.get("/endpoints/local_endpoint") == made
    assert site.get("/endpoints") == {"data": [made], "next": None}
    headers = {"authorization": "Bearer other", "X-Team": "blue"}
    edited = site.done("PATCH", "/endpoints/local_endpoint", {"headers": headers})
    assert edited["headers"].keys() == headers.keys()
    assert edited["headers"]["authorization"] != made["headers"]["Authorization"]
    assert edited["signing"] == made["signing"]
    less = {"headers": {"x-team": None}, "signing_secret": None, "url": f"{LOCAL}s"}
    edited = site.done("PATCH", "/endpoints/local_endpoint", less)
    assert (list(edited["headers"]), edited["signing"]) == (["authorization"], [])
    assert edited["url"] == f"{LOCAL}s"
    assert site.done("POST", "/endpoints/local_endpoint/enable") == {"consumers": []}
    assert site.done("DELETE", "/endpoints/local_endpoint") is None
    refused: list[dict[str, Any]] = [
        {"url": "http://10.0.0.1/"}, {"url": "ftp://127.0.0.1/"}, {"name": "a b"},
        {"headers": {"Host": "x"}}, {"headers": {"X": "a\nb"}}, {"signing_secret": "short"},
    ]  # fmt: skip
    for given in refused:
        assert site.call("POST", "/endpoints", {**ENDPOINT, **given}).status == 422, given
    assert site.get("/endpoints")["data"] == []


def test_the_test_of_an_endpoint_tells_what_came_back_but_not_our_secrets(site: ApiSite) -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            given = Request(scope).headers["authorization"]
            await JSONResponse({"you": "sent", "header": given}, 403)(scope, receive, send)

    with serving(echo) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/hook"
        for name, header in (("short", "Bearer s3cret!"), ("long", f"Bearer {'s3cret!' * 40}")):
            given = {"name": name, "url": url, "headers": {"Authorization": header}}
            site.done("POST", "/endpoints", given)
            report = site.done("POST", f"/endpoints/{name}/test")
            assert (report["ok"], report["status"]) == (False, 403)
            assert report["answer"].startswith('{"you":"sent"')
            assert "s3cret!" not in str(report)
            assert [step["name"] for step in report["steps"]] == ["dns", "connect", "answer"]
