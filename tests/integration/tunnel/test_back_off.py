"""What waits for its next attempt goes at once when a tunnel is opened, and no earlier."""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import JSONResponse, Response

from tests.faults.rig.proxy import Proxy
from tests.integration.pipeline import execute
from tests.integration.tunnel.world import (
    ENDPOINT,
    declare,
    laptop,
    names,
    port_of,
    streaming,
    token_of,
    until_rows,
    with_key,
)
from tests.receiver import Received, Receiver
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings
from triggerkit.state import backoff

PARKED = "SELECT state, attempts FROM triggerkit.parked"


@pytest.fixture
def keyed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings by which no back-off ends within a test."""
    monkeypatch.setattr(backoff, "FIRST_WAIT_S", 300.0)
    return with_key(settings)


async def _refuse(received: Received) -> Response:
    return JSONResponse({}, 422 if "bad" in str(received.body) else 200)


def test_a_parked_message_goes_at_once_by_another_command_but_not_by_a_line_that_comes_back(
    keyed: Settings,
    port: int,
) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items", max_attempts=3))
        token = await token_of(keyed, "alice")
        async with streaming(keyed), Receiver.start(_refuse) as app, Proxy.before(port) as proxy:
            async with laptop(proxy.port, token, {ENDPOINT: port_of(app)}) as it:
                await execute(keyed, "INSERT INTO items VALUES (1, 'bad')")
                await until_rows(keyed, PARKED, [("failing", 1)])
                proxy.end_all()
                await it.until(lambda: len(it.readies) == 2)
                await execute(keyed, "INSERT INTO items VALUES (2, 'good')")
                await app.until(lambda: names(app)[-1] == "good")
                await until_rows(keyed, PARKED, [("failing", 1)])
            async with (
                Receiver.start() as mended,
                laptop(port, token, {ENDPOINT: port_of(mended)}),
            ):
                await mended.until(lambda: names(mended) == ["bad"])
                await until_rows(keyed, PARKED, [])
            assert names(app) == ["bad", "good"]

    asyncio.run(scenario())


def test_a_push_whose_tunnel_ended_meanwhile_goes_at_once_by_the_next(
    keyed: Settings, port: int
) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items"))
        token = await token_of(keyed, "alice")
        took = asyncio.Event()

        async def hang(_received: Received) -> Response:
            took.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with (
            streaming(keyed),
            Receiver.start(hang) as hanging,
            Receiver.start() as app,
            laptop(port, token, {ENDPOINT: port_of(hanging)}),
        ):
            await execute(keyed, "INSERT INTO items VALUES (1, 'x')")
            async with asyncio.timeout(20):
                await took.wait()
            async with laptop(port, token, {ENDPOINT: port_of(app)}):
                await app.until(lambda: names(app) == ["x"])

    asyncio.run(scenario())


def test_a_parked_push_whose_tunnel_ended_meanwhile_goes_at_once_by_the_next(
    keyed: Settings,
    port: int,
) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items", max_attempts=5))
        token = await token_of(keyed, "alice")
        took = asyncio.Event()

        async def refuse_then_hang(received: Received) -> Response:
            if received.headers["triggerkit-attempt"] == "1":
                return JSONResponse({}, 422)
            took.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with streaming(keyed), Receiver.start(refuse_then_hang) as app:
            async with laptop(port, token, {ENDPOINT: port_of(app)}):
                await execute(keyed, "INSERT INTO items VALUES (1, 'x')")
                await until_rows(keyed, PARKED, [("failing", 1)])
            async with (
                Proxy.before(port) as proxy,
                laptop(proxy.port, token, {ENDPOINT: port_of(app)}) as it,
            ):
                async with asyncio.timeout(20):
                    await took.wait()
                # By the same command: what was under way was cut, and goes on.
                proxy.end_all()
                await it.until(lambda: len(it.readies) == 2)
                await until_rows(keyed, PARKED, [("failing", 3)])

    asyncio.run(scenario())
