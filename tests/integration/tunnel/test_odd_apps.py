"""Apps on the laptop that answer oddly, or not: their messages wait, and the tunnel stays open."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from starlette.responses import JSONResponse, Response

from tests.faults.rig.proxy import Proxy
from tests.integration.pipeline import execute
from tests.integration.tunnel.raw import head, raw
from tests.integration.tunnel.world import (
    ENDPOINT,
    declare,
    laptop,
    names,
    port_of,
    rows,
    streaming,
    token_of,
    until,
    until_rows,
)
from tests.receiver import Received, Receiver
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings
from triggerkit.tunnel import connection
from triggerkit.web.tunnel import line

CHUNKS = b"1;x=y\r\n{\r\n1\r\n}\r\n0\r\na: b\r\n\r\n"

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


#: What no line makes much smaller.
PAGE = secrets.token_urlsafe(600_000)


async def page(_received: Received) -> Response:
    return JSONResponse({"page": PAGE})


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (head("999 Denied"), 999, "answered 999"),
        (head("600 What"), 600, "answered 600"),
        (head("307 Temporary Redirect", "location: http://169.254.169.254/"), 307, "answered 307"),
        (head("101 Switching Protocols", "upgrade: h2c"), None, "not HTTP/1.1"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", None, "not HTTP/1.1"),
        (b"\x15\x03\x01\x00\x02\x02\x16", None, "not HTTP/1.1"),
        (b"", None, "before an answer came"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", None, "in the midst"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n", None, "head is larger"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\x01\r\ncontent-length: 0\r\n\r\n", None, ""),
    ],
)
def test_an_odd_answer_is_told_and_the_tunnel_stays(
    keyed: Settings, port: int, answer: bytes, status: int | None, error: str
) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items", max_attempts=1))
        async with streaming(keyed), raw(answer) as app:
            token = await token_of(keyed, "alice")
            async with laptop(port, token, {ENDPOINT: app.port}) as it:
                await execute(keyed, "INSERT INTO items VALUES (1, 'x')")
                await it.until(lambda: bool(it.deliveries))
                outcome = it.deliveries[0].outcome
                assert error in str(outcome.error) or status is not None
                app.answer = OK
                await until_rows(keyed, "SELECT last_error FROM triggerkit.consumers", [(None,)])
                await until(lambda: len(app.heads) == 2)
                assert (len(it.readies), it.losses) == (1, [])
            [(noted, why), *_] = await rows(
                keyed, "SELECT status, error FROM triggerkit.deliveries ORDER BY id"
            )
            assert noted == status
            assert error in why

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS,
        b"HTTP/1.0 200 OK\r\n\r\n{}",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
    ids=["announced", "chunked", "of HTTP/1.0", "without content"],
)  # fmt: skip
def test_whatever_http_allows_is_an_answer(keyed: Settings, port: int, answer: bytes) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items"))
        async with streaming(keyed), raw(answer) as app:
            token = await token_of(keyed, "alice")
            async with laptop(port, token, {ENDPOINT: app.port}) as it:
                await execute(keyed, "INSERT INTO items VALUES (1, 'x')")
                await it.until(lambda: bool(it.deliveries))
                assert it.deliveries[0].outcome.is_taken
                told = "SELECT count(*) FROM triggerkit.deliveries WHERE error IS NULL"
                await until_rows(keyed, told, [(1,)])

    asyncio.run(scenario())


def test_a_large_answer_comes_over_a_slow_line(
    keyed: Settings, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a page of errors: it takes longer than any piece of it may."""
    monkeypatch.setattr(line, "ANSWER_S", 1.0)

    async def scenario() -> None:
        await declare(keyed, changes("items", timeout_s=1))
        async with streaming(keyed), Receiver.start(page) as app, Proxy.before(port) as network:
            token = await token_of(keyed, "alice")
            async with laptop(network.port, token, {ENDPOINT: port_of(app)}) as it:
                network.rate = 200 * 1024
                await execute(keyed, "INSERT INTO items VALUES (1, 'x')")
                told = "SELECT count(*) FROM triggerkit.deliveries WHERE error IS NULL"
                await until_rows(keyed, told, [(1,)])
                assert (names(app), it.losses) == (["x"], [])
        assert len(await rows(keyed, "SELECT FROM triggerkit.deliveries")) == 1

    asyncio.run(scenario())


def test_a_command_that_is_ended_gives_the_answers_that_it_has(
    keyed: Settings, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "DRAIN_S", 20.0)
    monkeypatch.setattr(connection, "CLOSE_S", 20.0)

    async def scenario() -> None:
        await declare(keyed, changes("items"))
        async with streaming(keyed), Receiver.start(page) as app, Proxy.before(port) as network:
            token = await token_of(keyed, "alice")
            async with laptop(network.port, token, {ENDPOINT: port_of(app)}) as it:
                network.rate = 200 * 1024
                await execute(keyed, "INSERT INTO items VALUES (1, 'x')")
                await it.until(lambda: len(it.deliveries) == 1)
                await it.connection.end()
                it.running.cancel()
                await asyncio.gather(it.running, return_exceptions=True)
                told = "SELECT count(*) FROM triggerkit.deliveries WHERE error IS NULL"
                await until_rows(keyed, told, [(1,)])
            assert len(app.requests) == 1

    asyncio.run(scenario())


def test_whichever_of_the_last_deliveries_is_asked_for_comes_again(
    keyed: Settings, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was printed last need not have been sent last."""
    monkeypatch.setattr(connection, "AGAIN_S", 3.0)

    async def scenario() -> None:
        await declare(keyed, changes("items"))
        token = await token_of(keyed, "alice")
        async with (
            streaming(keyed),
            Receiver.start() as app,
            laptop(port, token, {ENDPOINT: port_of(app)}) as it,
        ):
            for number in range(3):
                await execute(keyed, f"INSERT INTO items VALUES ({number}, '{number}')")
                await it.until(lambda n=number: len(it.deliveries) == n + 1)  # type: ignore[misc]
            assert await it.connection.again(it.deliveries[0].batch_id)
            await app.until(lambda: len(app.requests) == 4)
            assert app.requests[3].body == app.requests[0].body
            assert not await it.connection.again("msg_of_nobody")

    asyncio.run(scenario())
