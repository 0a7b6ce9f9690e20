"""The webhook route while Postgres or Redis is away, and in an app of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette

from tests.integration.run_state import RunState, postgres_away, run_state
from tests.integration.serving import serving
from tests.integration.worker_thread import Order, working
from tests.servers import Servers
from triggerkit import task
from triggerkit.embedded.redis import EmbeddedRedis
from triggerkit.runs.door import through
from triggerkit.runs.portal import Portal
from triggerkit.settings import Settings
from triggerkit.web.application import Application
from triggerkit.web.webhook import webhook

ORDERS = "/orders"


@task
def take_lost_order(order: Order) -> None: ...


def orders() -> Starlette:
    return Starlette(routes=[webhook(ORDERS, task=take_lost_order)])


def test_a_run_is_accepted_while_redis_is_away(settings: Settings, state: RunState) -> None:
    nowhere = {**settings.environment(), "REDIS_URL": "unix:///nowhere/redis.sock"}
    with serving(Application(Settings.parse(nowhere), [], orders())) as site:
        assert site.post(ORDERS, {"number": 1}).status == 200
        answer = site.request("GET", "/readyz")
        assert (answer.status, answer.json["missing"]) == (503, ["redis"])
    assert (state.statuses(), state.pushed()) == (["queued"], [])


def test_what_is_triggered_while_redis_is_down_runs_once_it_is_back(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    own = EmbeddedRedis(tmp_path)
    servers.run(own.start())
    away = Settings.parse({**settings.environment(), "REDIS_URL": own.url})
    try:
        with (
            run_state(away) as state,
            working(state, take_lost_order),
            serving(Application(away, [], orders())) as site,
        ):
            servers.run(own.stop())
            handle = site.post(ORDERS, {"number": 1})
            assert handle.status == 200
            assert state.statuses() == ["queued"]
            servers.run(own.start())
            state.wait_for_status("completed", handle.json["id"])
    finally:
        servers.run(own.stop())


def test_while_postgres_is_away_the_sender_is_told_to_come_again(settings: Settings) -> None:
    with serving(Application(settings, [], orders())) as site:
        with postgres_away(settings):
            answer = site.post(ORDERS, {"number": 1})
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert site.request("GET", "/readyz").json["missing"] == ["postgres"]
            assert site.request("GET", "/healthz").status == 200
        with run_state(settings) as after:
            after.wait_for(lambda: site.post(ORDERS, {"number": 1}).status == 200)
            assert after.statuses() == ["queued"]


def test_a_route_in_an_app_of_the_users_own_opens_its_client_by_itself(
    settings: Settings, state: RunState, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    portal = Portal()
    monkeypatch.chdir(tmp_path)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    try:
        with through(portal), serving(orders()) as site:
            assert site.post(ORDERS, {"number": 1}, authorized=False).status == 401
            assert site.post(ORDERS, {"number": 1}).status == 200
    finally:
        portal.close()
    assert state.statuses() == ["queued"]
