"""Who has no key learns nothing, and who has it no secret."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.integration.serving import serving
from tests.integration.web.api.described import ENCRYPTION_KEY, KEY, ApiSite, api, operations
from tests.integration.web.api.guide import AT, LOCAL, SECRET
from triggerkit.settings import Settings
from triggerkit.web.application import Application


def test_without_the_key_every_operation_is_the_same_401(site: ApiSite, settings: Settings) -> None:
    wrong = ["", "Bearer", "Bearer undefined", f"Bearer {KEY}x", f"Basic {KEY}", "Bearer \xfc"]
    found = [
        site.site.request(method, path, None, given)
        for method, path in [*operations(), ("GET", "/api/v1/runs/x/y"), ("PUT", "/api/v1/runs")]
        for given in ({}, *({"authorization": value} for value in wrong))
    ]
    assert {(a.status, orjson.dumps(a.json)) for a in found} == {(401, b'{"error":"Unauthorized"}')}
    assert {a.headers["www-authenticate"] for a in found} == {"Bearer"}
    with serving(Application(settings, [], None)) as keyless:
        for given in ({}, {"authorization": "Bearer "}, {"authorization": f"Bearer {KEY}"}):
            assert keyless.request("GET", "/api/v1/consumers", None, given).status == 401


def test_a_source_that_is_away_is_a_503_that_names_no_password(
    settings: Settings, site: ApiSite
) -> None:
    away = "postgresql://reader:canary-password@127.0.0.1:1/source"
    with api(settings, DATABASE_URL=away, TRIGGERKIT_STATE_URL=settings.state_dsn) as site:
        answer = site.call("POST", "/consumers", {"name": "x", "tables": ["public.posts"]})
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "127.0.0.1:1" in answer.json["error"]
        assert "canary" not in str(site.texts)


def test_no_answer_has_a_secret_or_asks_to_be_read_by_another_site(
    pushed: ApiSite, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    canaries = ["canary-header", "canary-typo", SECRET, KEY, ENCRYPTION_KEY, "two"]
    header = {"X-Canary": "canary-header"}
    given = {"name": "canary", "url": LOCAL, "headers": header, "signing_secret": SECRET}
    pushed.done("POST", "/endpoints", given)
    wrong: list[Any] = [
        given, {**given, "name": "x", "signing_secret": ["canary-typo"]},
        {**given, "name": "x", "headers": "canary-typo"}, {**given, "name": "x", "url": []},
        {**given, "name": "x", "headers": {"Host": "canary-typo"}},
        {**given, "name": "x", "signing_secret": "canary-typo"},
        {**given, "name": "x", "canary": "canary-typo"},
        {**given, "name": "x", "url": "http://user:canary-typo@127.0.0.1/hook"},
        {**given, "name": "x", "url": "http://user:canary-typo@[::1/hook"},
        {**given, "name": "x", "headers": {"X": "canary-typo\n"}},
        {**given, "name": "x", "headers": {"X": "canary-typo\u0000"}},
    ]  # fmt: skip
    for body in wrong:
        assert pushed.call("POST", "/endpoints", body).status in (409, 422)
    pushed.call("POST", "/endpoints/canary/test")
    pushed.done("PATCH", "/endpoints/canary", {"headers": {"X-Canary": "canary-header-2"}})
    for method, path in operations():
        if method == "GET":
            pushed.call(method, path.removeprefix("/api/v1"))
    pushed.get(AT)
    for canary in canaries:
        assert not [text for text in pushed.texts if canary in text], canary
        assert canary not in caplog.text
    answer = pushed.call("GET", "/consumers", origin="https://elsewhere.example")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert answer.headers["cache-control"] == "no-store"
    preflight = pushed.site.request(
        "OPTIONS", "/api/v1/consumers", None, {"origin": "https://elsewhere.example"}
    )
    assert preflight.status == 401
