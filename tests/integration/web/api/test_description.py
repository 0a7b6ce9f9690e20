"""The API's description: valid, complete, and what the page's commands do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from tests import ROOT
from tests.integration.serving import serving
from tests.integration.web.api.described import KEY, ApiSite, api, operations
from triggerkit.settings import Settings
from triggerkit.web.api.management import describe_all
from triggerkit.web.application import Application


def test_every_described_operation_is_served_and_every_route_is_described(site: ApiSite) -> None:
    application = Application(Settings(), [], None)
    [mount] = [route for route in application._app.routes if type(route).__name__ == "Api"]
    served = {mount.path + route.path for route in mount.routes}  # type: ignore[attr-defined]
    assert served - set(describe_all()["paths"]) == {"/api/v1/{rest:path}"}
    for method, path in operations():
        answer = site.call(method, path.removeprefix("/api/v1"))
        assert answer.status != 405, path
        is_unknown = answer.status == 404 and "nothing here" in answer.json["error"]
        assert not is_unknown, path
    answer = site.call("PUT", "/consumers")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")
    assert site.call("GET", "/consumers/x/y/z").status == 404


def test_the_description_is_valid_and_is_served(site: ApiSite) -> None:
    openapi_spec_validator = pytest.importorskip("openapi_spec_validator")
    found = site.get("/openapi.json")
    openapi_spec_validator.validate(found)
    assert found["openapi"] == "3.1.0"
    names = [o["operationId"] for path in found["paths"].values() for o in path.values()]
    assert len(names) == len(set(names))
    definition = found["components"]["schemas"]["ConsumerDefinition"]
    assert set(definition["properties"]) >= {"tables", "sort_by", "filters", "max_attempts"}


def test_what_is_not_ours_below_the_prefix_is_the_users_apps(settings: Settings) -> None:
    async def user_app(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse({"app": Request(scope).url.path})(scope, receive, send)

    with serving(Application(settings, [], user_app)) as site:
        assert site.request("GET", "/api/v1/users").json == {"app": "/api/v1/users"}
        assert site.request("GET", "/api/v1/consumers/x/y").status == 401


def test_the_commands_of_the_documentation_do_what_they_say(
    posts: None, settings: Settings, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        assert os.environ.get("TRIGGERKIT_TEST_REQUIRE") != "all", "curl is missing"
        pytest.skip("needs curl")
    page = (ROOT / "docs" / "api.md").read_text()
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    with api(settings) as site:
        script = script.replace("127.0.0.1:8000", f"127.0.0.1:{site.site.port}")
        done = subprocess.run(
            ["bash", "-euc", script],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "TRIGGERKIT_SECRET_KEY": KEY},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        actions = [change["action"] for change in reversed(site.get("/audit")["data"])]
    assert actions == [
        "endpoint.create", "endpoint.edit", "create", "change", "pause", "resume", "replay",
        "backfill pause", "backfill resume", "backfill cancel", "backfill start",
        "retry messages", "discard messages", "cancel runs", "replay runs", "pause queue",
        "resume queue", "limit queue", "delete", "endpoint.delete",
    ]  # fmt: skip
    assert orjson.loads((tmp_path / "openapi.json").read_bytes()) == describe_all()
