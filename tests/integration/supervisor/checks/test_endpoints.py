"""An endpoint that nothing serves, that is somebody else's, or that nothing may be sent to."""

from __future__ import annotations

import asyncio
import socket

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from tests.integration.serving import serving
from tests.integration.supervisor.checks.checking import checked, run_sql
from tests.receiver import Receiver
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings
from triggerkit.supervisor.checks import Check, endpoints
from triggerkit.web.application import Application


def endpoint(settings: Settings, url: str, networks: str = "") -> Check:
    """The check of a consumer's endpoint when our routes are reached under `url`."""
    run_sql(settings, "CREATE TABLE IF NOT EXISTS public.items (id bigint PRIMARY KEY)")
    update = {"triggerkit_public_url": url, "triggerkit_allow_networks": networks}
    return checked(settings.model_copy(update=update), changes("items"))["endpoint of task_0"]


def test_an_endpoint_that_serves(settings: Settings) -> None:
    with serving(Application(settings, [], None)) as site:
        check = endpoint(settings, f"http://127.0.0.1:{site.port}")
    assert check.ok
    assert f":{site.port}/task-0" in check.detail


def test_nothing_serves_yet(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    check = endpoint(settings, f"http://127.0.0.1:{port}")
    assert (check.ok, check.failed) == (False, False)
    assert "triggerkit serve" in (check.remedy or "")
    assert "triggerkit dev" in (check.remedy or "")


def test_somebody_else_listens_and_gets_no_delivery(settings: Settings) -> None:
    async def scenario() -> Check:
        async with Receiver.start() as receiver:
            check = await asyncio.to_thread(endpoint, settings, receiver.url)
            assert receiver.requests == []
            return check

    check = asyncio.run(scenario())
    assert (check.ok, check.failed) == (False, False)
    assert "404" in check.detail


def test_a_proxy_with_nothing_behind_it(settings: Settings) -> None:
    async def answer(_request: object) -> Response:
        return Response(status_code=502)

    with serving(Starlette(routes=[Route("/healthz", answer)])) as site:
        check = endpoint(settings, f"http://127.0.0.1:{site.port}")
    assert check.failed
    assert "502" in check.detail


def test_an_endpoint_that_does_not_answer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        check = endpoint(settings, f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert check.failed
    assert "no answer" in check.detail


def test_a_private_address_is_not_asked_but_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = endpoint(settings, "http://10.255.0.7:8000", "192.168.1.0/24")
    assert check.failed
    assert check.remedy == "TRIGGERKIT_ALLOW_NETWORKS=192.168.1.0/24,10.255.0.7/32"
    monkeypatch.setattr(endpoints, "TIMEOUT_S", 0.01)
    allowed = (check.remedy or "").partition("=")[2]
    assert "not public" not in endpoint(settings, "http://10.255.0.7:8000", allowed).detail


@pytest.mark.parametrize(
    "url",
    ["http://nowhere.invalid", "ftp://127.0.0.1", "http://127.0.0.1:port", "http://me@127.0.0.1"],
    ids=["unknown", "no http", "no port", "user"],
)
def test_a_public_url_that_nothing_can_be_sent_to(settings: Settings, url: str) -> None:
    check = endpoint(settings, url)
    assert check.failed
    assert "TRIGGERKIT_PUBLIC_URL" in (check.remedy or "")
