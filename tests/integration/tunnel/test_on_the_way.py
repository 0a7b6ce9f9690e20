"""What stands between a command and its server: proxies, balancers, portals, and nothing at all."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.faults.rig.proxy import Proxy
from tests.integration.tunnel.raw import head, raw
from tests.integration.tunnel.world import ENDPOINT, declare, laptop, token_of, until
from tests.ports import free_port
from triggerkit.consumers.definition import changes
from triggerkit.errors import TriggerkitError
from triggerkit.settings import Settings
from triggerkit.tunnel import connection
from triggerkit.tunnel.connection import TunnelConnection
from triggerkit.tunnel.deliveries import Deliveries
from triggerkit.tunnel.port import Ports
from triggerkit.tunnel.server import Server
from triggerkit.tunnel.wire import Ready


class Quiet:
    """Tells nobody."""

    def ready(self, ready: Ready, *, is_first: bool, away_s: float) -> None: ...

    def lost(self, reason: str, wait_s: float) -> None: ...


async def refusal(url: str) -> str:
    """What ends a command at the first try."""
    deliveries = Deliveries(Ports({ENDPOINT: 3001}), lambda _: None)
    command = TunnelConnection(Server.parse(url), "x", {ENDPOINT: 3001}, deliveries, Quiet())
    with pytest.raises(TriggerkitError) as refused:
        async with asyncio.timeout(20):
            await command.run()
    return str(refused.value)


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable"])
def test_a_balancer_whose_servers_are_being_started_is_waited_for(
    keyed: Settings, port: int, status: str
) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items"))
        token = await token_of(keyed, "alice")
        async with raw(head(status)) as away, Proxy.before(away.port) as balancer:
            starting = laptop(balancer.port, token, {ENDPOINT: 3001})
            opening = asyncio.create_task(starting.__aenter__())
            await until(lambda: bool(away.heads))
            balancer.lead_to(port)
            it = await opening
            assert it.losses[0] == f"the server answers {status[:3]}"
            assert len(it.readies) == 1
            await starting.__aexit__(None, None, None)

    asyncio.run(scenario())


def test_a_redirect_to_another_server_is_not_followed() -> None:
    async def scenario() -> None:
        async with raw(head("404 Not Found")) as elsewhere:
            location = f"location: ws://127.0.0.1:{elsewhere.port}/"
            async with raw(head("307 Temporary Redirect", location)) as asked:
                said = await refusal(f"ws://127.0.0.1:{asked.port}")
                assert f"sends elsewhere: ws://127.0.0.1:{elsewhere.port}/" in said
            assert elsewhere.heads == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "proxy",
    ["http://user:hunter2@proxy:none", "http://user:hun?ter2@proxy", "ftp://user:hunter2@proxy",
     "http://hunter2@proxy", "socks5://user:hunter2@127.0.0.1:1"],
)  # fmt: skip
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    said = asyncio.run(refusal("wss://app.example.com"))
    assert "HTTPS_PROXY" in said
    assert "NO_PROXY=app.example.com" in said
    assert "hun" not in said


def test_a_proxy_that_refuses_and_one_that_is_away_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refused(proxy_port: int) -> str:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@127.0.0.1:{proxy_port}")
        return await refusal("wss://app.example.com")

    async def scenario() -> None:
        async with raw(head("407 Proxy Authentication Required")) as proxy:
            said = await refused(proxy.port)
            assert "HTTP 407" in said
            assert b"CONNECT app.example.com:443" in proxy.heads[0]
            # What is meant for the server alone does not reach the proxy.
            assert b"Bearer" not in proxy.heads[0]
        said = await refused(free_port())
        assert "cannot connect to app.example.com by the proxy of the environment: conn" in said

    asyncio.run(scenario())


def test_a_server_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose database hangs."""
    monkeypatch.setattr(connection, "WORD_S", 0.3)

    async def silent(socket: ServerConnection) -> None:
        async for _ in socket:
            pass

    async def scenario() -> None:
        told: asyncio.Queue[str] = asyncio.Queue()

        class Telling(Quiet):
            def lost(self, reason: str, wait_s: float) -> None:
                told.put_nowait(reason)

        async with serve(silent, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            ports = {ENDPOINT: 3001}
            deliveries = Deliveries(Ports(ports), lambda _: None)
            where = Server.parse(f"ws://127.0.0.1:{port}")
            command = TunnelConnection(where, "x", ports, deliveries, Telling())
            running = asyncio.create_task(command.run())
            async with asyncio.timeout(20):
                assert await told.get() == "the server says nothing"
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())
