"""Endpoints that are not our own routes: tried as far as a push goes before it says anything."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.certificates import self_signed
from tests.integration.delivery.test_probe import tls_server
from tests.integration.supervisor.checks.checking import run_sql
from tests.receiver import Receiver
from triggerkit.consumers.declare.declaration import Declared, DeclaredEndpoint
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings
from triggerkit.supervisor.checks import Check, foreign_endpoints, run_checks

#: A consumer that pushes to the endpoint `outside`.
USES = Declared("copies", changes("items").model_copy(update={"endpoint": "outside"}))


async def tried(
    settings: Settings, url: str, *consumers: Declared, networks: str | None = None
) -> Check:
    """The check of an endpoint of the file at `url`."""
    if networks is not None:
        settings = settings.model_copy(update={"triggerkit_allow_networks": networks})
    endpoints = [DeclaredEndpoint("outside", url)]
    found = await run_checks(settings, consumers, endpoints, advise=True)
    return next(check for check in found if check.name == "endpoint outside")


def test_an_endpoint_that_listens_gets_nothing(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            check = await tried(settings, f"{receiver.url}/hook", USES)
            assert (check.ok, check.required) == (True, True)
            assert f"127.0.0.1 port {receiver.url.rpartition(':')[2]}" in check.detail
            assert receiver.requests == []

    asyncio.run(scenario())


def test_an_endpoint_where_nothing_listens(settings: Settings) -> None:
    check = asyncio.run(tried(settings, "http://127.0.0.1:1/hook", USES))
    assert check.failed
    assert "connect failed" in check.detail
    assert "open the way from here to 127.0.0.1" in (check.remedy or "")
    assert "endpoints.outside url in triggerkit.toml" in (check.remedy or "")
    unused = asyncio.run(tried(settings, "http://127.0.0.1:1/hook"))
    assert (unused.ok, unused.failed) == (False, False)


def test_a_host_without_an_address(settings: Settings) -> None:
    check = asyncio.run(tried(settings, "https://nowhere.invalid/hook", USES))
    assert check.failed
    assert "nowhere.invalid" in check.detail
    assert (check.remedy or "").startswith("correct endpoints.outside url")


def test_a_private_address_is_refused_with_the_setting_that_allows_it(settings: Settings) -> None:
    check = asyncio.run(tried(settings, "http://127.0.0.1:1", USES, networks="192.168.1.0/24"))
    assert check.failed
    remedy = check.remedy or ""
    assert remedy.startswith("TRIGGERKIT_ALLOW_NETWORKS=192.168.1.0/24,127.0.0.1/32")


def test_a_certificate_that_nobody_trusts(settings: Settings, tmp_path: Path) -> None:
    path = self_signed(tmp_path, "127.0.0.1")

    async def scenario() -> Check:
        async with tls_server(path) as url:
            return await tried(settings, url, USES)

    check = asyncio.run(scenario())
    assert check.failed
    assert "certificate" in check.detail
    assert "SSL_CERT_FILE" in (check.remedy or "")


def test_a_certificate_that_is_trusted(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = self_signed(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))

    async def scenario() -> Check:
        async with tls_server(path) as url:
            return await tried(settings, url, USES)

    check = asyncio.run(scenario())
    assert check.ok
    assert "the certificate of 127.0.0.1 is trusted" in check.detail


def test_a_server_that_takes_no_connection_further(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_endpoints, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        check = asyncio.run(tried(settings, url, USES))
    assert check.failed
    assert "tls took too long" in check.detail


def test_endpoints_of_the_api_are_tried_too(settings: Settings) -> None:
    run_sql(
        settings,
        "INSERT INTO triggerkit.endpoints (name, url, managed_by) VALUES "
        "('hand_made', 'http://127.0.0.1:1/x', 'api'), ('task', 'http://127.0.0.1:1/y', 'code'), "
        "('gone', 'http://127.0.0.1:1/z', 'file')",
    )
    found = {c.name: c for c in asyncio.run(run_checks(settings, [], advise=True))}
    assert "triggerkit endpoints edit hand_made --url" in (found["endpoint hand_made"].remedy or "")
    assert not found["endpoint hand_made"].failed
    assert not {"endpoint task", "endpoint gone"} & found.keys()
