"""Requests that are refused: names that are unknown or taken, bodies that do not fit."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.integration.away import away
from tests.integration.web.api.described import ApiSite
from tests.integration.web.api.guide import AT, CONSUMER, ENDPOINT, LOCAL, refusal
from triggerkit.settings import Settings
from triggerkit.web.api.management import MAX_BODY_BYTES


def test_unknown_names_are_404_and_name_those_that_exist(pushed: ApiSite) -> None:
    for method, path, body in [
        ("GET", "", None), ("PATCH", "", {"batch_size": 2}), ("DELETE", "", None),
        ("GET", "/health", None), ("POST", "/pause", None), ("POST", "/resume", None),
        ("POST", "/replay", {"from": "beginning"}),
    ]:  # fmt: skip
        answer = pushed.call(method, f"/consumers/post{path}", body)
        expected = "no consumer is named 'post'; known consumers: posts_push_consumer"
        assert refusal(answer) == (404, expected)
    for method, path, body in [
        ("GET", "", None), ("PATCH", "", {"url": LOCAL}), ("DELETE", "", None),
        ("POST", "/test", None), ("POST", "/enable", None),
    ]:  # fmt: skip
        answer = pushed.call(method, f"/endpoints/local{path}", body)
        assert refusal(answer) == (
            404,
            "no endpoint is named 'local'; known endpoints: local_endpoint",
        )
    status, error = refusal(pushed.call("GET", "/databases/x"))
    assert (status, error.startswith("no database is named 'x'; known databases: test_")) == (
        404,
        True,
    )
    assert pushed.call("GET", "/backfills/99").json["error"].endswith("the latest are 1")
    for path in ("/backfills/x", "/runs/run_x", "/consumers/%00", "/runs/%00", "/databases/%00"):
        assert pushed.call("GET", path).status == 404, path
    answer = pushed.call("POST", "/backfills", {"consumer": "post"})
    assert (answer.status, "posts_push_consumer" in answer.json["error"]) == (404, True)


def test_conflicts_are_409_and_change_nothing(pushed: ApiSite, settings: Settings) -> None:
    assert pushed.call("POST", "/consumers", CONSUMER).status == 409
    assert pushed.call("POST", "/endpoints", ENDPOINT).status == 409
    answer = pushed.call("DELETE", "/endpoints/local_endpoint")
    assert (answer.status, "posts_push_consumer" in answer.json["error"]) == (409, True)
    answer = pushed.call("PATCH", AT, {"group_by": ["title"]})
    assert (answer.status, "may_lose" in answer.json["error"]) == (409, True)
    assert len(pushed.get(AT)["cursors"]) > 1
    pushed.done("PATCH", AT, {"group_by": ["title"], "may_lose": True})
    assert [cursor["partition"] for cursor in pushed.get(AT)["cursors"]] == [-1]
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        connection.execute("UPDATE triggerkit.consumers SET managed_by = 'code'")
        connection.execute("UPDATE triggerkit.endpoints SET managed_by = 'file'")
    answer = pushed.call("PATCH", AT, {"batch_size": 2})
    assert (answer.status, "triggerkit apply" in answer.json["error"]) == (409, True)
    for method, body in (("PATCH", {"url": LOCAL}), ("DELETE", None)):
        answer = pushed.call(method, "/endpoints/local_endpoint", body)
        assert (answer.status, "triggerkit.toml" in answer.json["error"]) == (409, True)


def test_a_request_that_is_not_json_within_limits_is_refused(site: ApiSite) -> None:
    def status(body: Any, **headers: str) -> int:
        return site.call("POST", "/endpoints", body, **headers).status

    assert status(b"{") == 400
    assert status(b"") == 400
    assert status(b"[" * 100_000) == 400
    assert status(b"\xff") == 400
    assert status(b'{"name": "\\ud800", "url": "http://x"}') == 400
    assert status(b" " * (MAX_BODY_BYTES + 1)) == 413
    assert status(b"{}", **{"content-type": "text/plain"}) == 415
    assert status(b"{}", **{"content-encoding": "br"}) == 415
    assert status({"name": "x", "url": LOCAL, "header": {}}) == 422
    assert status([ENDPOINT]) == 422
    assert site.call("GET", "/runs?limit=0").status == 422
    assert site.call("GET", "/runs?status=lost").status == 422
    assert site.call("GET", "/runs?colour=red").status == 422
    assert site.call("GET", "/runs?task=%00").status == 422
    assert site.call("GET", "/consumers?colour=red").status == 422


def test_why_asked_while_the_database_is_away_is_a_503(site: ApiSite, settings: Settings) -> None:
    with away(settings.state_dsn):
        for asked in ("position=1", "run=run_x", "table=public.posts&key=1"):
            assert site.call("GET", f"/why?{asked}").status == 503
