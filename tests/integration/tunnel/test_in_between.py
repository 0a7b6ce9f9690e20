"""What answers in the server's place: a proxy whose server starts anew, a network's login page, a
proxy of the environment."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.faults.rig.proxy import Proxy
from tests.integration.pipeline import execute
from tests.integration.tunnel.world import (
    ENDPOINT,
    Laptop,
    declare,
    laptop,
    names,
    port_of,
    streaming,
    token_of,
)
from tests.receiver import Receiver
from triggerkit.consumers.definition import changes
from triggerkit.consumers.tunnels.members import TunnelRefused
from triggerkit.errors import CannotConnect
from triggerkit.settings import Settings

#: What a proxy says while a server is started anew, and what a network says before one logs in.
ANSWERS = {
    "404": "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
    "403": "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
    "429": "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n",
    "502": "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
    "302": "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/login\r\ncontent-length: 0\r\n\r\n",
    "200": "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "nonsense": "SSH-2.0-dropbear\r\n\r\n",
}


@asynccontextmanager
async def answering(text: str) -> AsyncIterator[int]:
    """The port of something that answers each request so."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text.encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def with_tls(port: int, certificate: Path) -> AsyncIterator[int]:
    """The port of a proxy that ends TLS before the server at `port`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(forward(reader, back), forward(there, writer), return_exceptions=True)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def comes_back(it: Laptop, proxy: Proxy, port: int, settings: Settings) -> None:
    """Lead the way to the server again, and see that messages come through."""
    await it.until(lambda: len(it.losses) >= 2)
    proxy.lead_to(port)
    await it.until(lambda: len(it.readies) == 2)
    await execute(settings, "INSERT INTO items VALUES (1, 'x')")
    await it.until(lambda: len(it.deliveries) == 1)


@pytest.mark.parametrize("answer", ANSWERS)
def test_whatever_answers_for_a_while_ends_no_tunnel_that_was_open(
    keyed: Settings, port: int, answer: str
) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items"))
        async with (
            streaming(keyed),
            Receiver.start() as app,
            answering(ANSWERS[answer]) as other,
            Proxy.before(port) as proxy,
            laptop(proxy.port, await token_of(keyed, "alice"), {ENDPOINT: port_of(app)}) as it,
        ):
            proxy.lead_to(other)
            proxy.end_all()
            await comes_back(it, proxy, port, keyed)
            assert names(app) == ["x"]

    asyncio.run(scenario())


def test_another_certificate_for_a_while_ends_no_tunnel_that_was_open(
    keyed: Settings, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that wants a login answers for every name, by a certificate of its own."""
    ours, theirs = Authority.make(tmp_path, "ours"), Authority.make(tmp_path, "theirs")
    monkeypatch.setenv("SSL_CERT_FILE", str(ours.file))
    right = ours.sign(tmp_path, "localhost")
    wrong = theirs.sign(tmp_path, "localhost", file="wrong.pem")

    async def scenario() -> None:
        await declare(keyed, changes("items"))
        token = await token_of(keyed, "alice")
        async with (
            streaming(keyed),
            Receiver.start() as app,
            with_tls(port, right) as trusted,
            with_tls(port, wrong) as untrusted,
            Proxy.before(trusted) as proxy,
        ):
            url = f"wss://localhost:{proxy.port}"
            async with laptop(0, token, {ENDPOINT: port_of(app)}, url=url) as it:
                proxy.lead_to(untrusted)
                proxy.end_all()
                await comes_back(it, proxy, trusted, keyed)
                assert any("is not trusted" in reason for reason in it.losses)
            proxy.lead_to(untrusted)
            async with laptop(0, token, {ENDPOINT: port_of(app)}, url=url) as it:
                assert "SSL_CERT_FILE" in await it.ended()

    asyncio.run(scenario())


def test_a_token_goes_to_no_other_address_than_the_one_that_was_given() -> None:
    async def scenario() -> None:
        place = "https://other.example/tunnel"
        moved = f"HTTP/1.1 308 Moved\r\nlocation: {place}\r\ncontent-length: 0\r\n\r\n"
        async with answering(moved) as port, laptop(port, "x", {ENDPOINT: 1}) as it:
            said = await it.ended()
            assert isinstance(it.running.exception(), TunnelRefused)
        assert "sends elsewhere: https://other.example/tunnel; give" in said

    asyncio.run(scenario())


@pytest.mark.parametrize("proxy", ["socks5://u:hunter2@10.0.0.1:1080", "http://u@p:1", "ftp://x"])
def test_a_proxy_that_cannot_be_used_is_named_with_the_remedy(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    async def scenario() -> None:
        async with laptop(0, "x", {ENDPOINT: 1}, url="wss://app.example.com") as it:
            said = await it.ended()
            assert isinstance(it.running.exception(), CannotConnect)
        assert "NO_PROXY=app.example.com" in said
        assert "hunter2" not in said

    asyncio.run(scenario())
