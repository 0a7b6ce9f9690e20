"""Several servers, servers that go away, machines that sleep: the messages wait and then come."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from tests.faults.rig.proxy import Proxy
from tests.integration.pipeline import execute
from tests.integration.serving import serving
from tests.integration.tunnel.world import (
    ENDPOINT,
    declare,
    laptop,
    names,
    port_of,
    rows,
    streaming,
    token_of,
    until_rows,
)
from tests.receiver import Receiver
from triggerkit.consumers.definition import changes
from triggerkit.consumers.health import consumer_health
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.tunnel import connection, wakefulness
from triggerkit.web.application import Application

KEY = "a management key for the tests only"


def test_whichever_server_holds_the_tunnel_the_messages_find_it(keyed: Settings) -> None:
    async def scenario(first: int, second: int) -> None:
        await declare(keyed, changes("items"), names=("one", "two"))
        async with streaming(keyed), Receiver.start() as one, Receiver.start() as two:
            token, other = await token_of(keyed, "alice"), await token_of(keyed, "bob")
            async with (
                laptop(first, token, {"one": port_of(one)}),
                laptop(second, other, {"two": port_of(two)}),
            ):
                await execute(keyed, "INSERT INTO items SELECT i, i FROM generate_series(1, 9) i")
                await one.until(lambda: len(one.messages) == 9)
                await two.until(lambda: len(two.messages) == 9)

    with (
        serving(Application(keyed, [], None)) as site,
        serving(Application(keyed, [], None)) as other,
    ):
        asyncio.run(scenario(site.port, other.port))


def test_a_tunnel_whose_server_ends_is_opened_at_the_next(keyed: Settings) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items"))
        token = await token_of(keyed, "alice")
        first = serving(Application(keyed, [], None))
        port = first.__enter__().port
        async with (
            streaming(keyed),
            Receiver.start() as app,
            laptop(port, token, {ENDPOINT: port_of(app)}) as it,
        ):
            await execute(keyed, "INSERT INTO items VALUES (1, 'before')")
            await it.until(lambda: len(it.deliveries) == 1)
            await asyncio.to_thread(first.__exit__, None, None, None)
            await it.until(lambda: bool(it.losses))
            assert it.losses[0] == "the server is restarting"
            assert not await rows(keyed, "SELECT FROM triggerkit.open_tunnels")
            await execute(keyed, "INSERT INTO items VALUES (2, 'while away')")
            second = serving(Application(keyed, [], None), port=port)
            await asyncio.to_thread(second.__enter__)
            await app.until(lambda: names(app) == ["before", "while away"], 60)
        await asyncio.to_thread(second.__exit__, None, None, None)

    asyncio.run(scenario())


def test_a_machine_that_slept_opens_its_tunnels_anew(
    keyed: Settings, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = 0.0
    monkeypatch.setattr(wakefulness, "_now", lambda: time.time() + slept)

    async def scenario() -> None:
        nonlocal slept
        await declare(keyed, changes("items"))
        async with streaming(keyed), Receiver.start() as app:
            token = await token_of(keyed, "alice")
            async with laptop(port, token, {ENDPOINT: port_of(app)}) as it:
                slept = 3600.0
                await it.until(lambda: it.losses == ["this machine slept"])
                await it.until(lambda: len(it.readies) == 2)
                await execute(keyed, "INSERT INTO items VALUES (1, 'x')")
                await app.until(lambda: names(app) == ["x"])

    asyncio.run(scenario())


def test_a_dead_line_that_the_server_knows_nothing_of_is_no_obstacle(
    keyed: Settings, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command takes the place of what its line before still holds."""
    monkeypatch.setattr(connection, "PING_S", 0.2)
    monkeypatch.setattr(connection, "PONG_S", 0.5)

    async def scenario() -> None:
        await declare(keyed, changes("items"))
        async with streaming(keyed), Receiver.start() as app, Proxy.before(port) as proxy:
            token = await token_of(keyed, "alice")
            async with laptop(proxy.port, token, {ENDPOINT: port_of(app)}) as it:
                await execute(keyed, "INSERT INTO items VALUES (1, 'before')")
                await it.until(lambda: len(it.deliveries) == 1)
                proxy.cut()
                await execute(keyed, "INSERT INTO items VALUES (2, 'lost at first')")
                await it.until(lambda: len(it.readies) == 2)
                # The answer to the first may have been cut off, too.
                await app.until(lambda: names(app)[-1] == "lost at first")
                assert set(names(app)) == {"before", "lost at first"}
                assert len(await rows(keyed, "SELECT FROM triggerkit.open_tunnels")) == 1

    asyncio.run(scenario())


def test_what_waits_for_a_tunnel_is_told_wherever_one_looks(keyed: Settings) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items"))
        async with streaming(keyed):
            await execute(keyed, "INSERT INTO items SELECT i, i FROM generate_series(1, 7) i")
            await until_rows(keyed, "SELECT count(*) FROM triggerkit.events", [(7,)])
        async with await connect(keyed.state_dsn, "test") as state:
            [health] = await consumer_health(state)
        [problem] = health.problems
        assert problem.name == "tunnel_away"
        assert problem.detail == f"no tunnel to {ENDPOINT} is open: 7 messages wait for one"
        assert problem.remedy.startswith(f"triggerkit tunnel --ports=3001:{ENDPOINT} --server ")

    asyncio.run(scenario())
    headers = {"authorization": f"Bearer {KEY}"}
    with_api = Settings.parse({**keyed.environment(), "TRIGGERKIT_SECRET_KEY": KEY})
    with serving(Application(with_api, [], None)) as site:
        [found] = site.request("GET", "/api/v1/endpoints", headers=headers).json["data"]
        assert (found["local"], found["tunnels"], found["waiting"]) == (True, [], 7)
        assert found["url"] == "http://localhost/push"
        why = site.request("GET", "/api/v1/why?table=public.items&key=3", headers=headers).json
    assert "tunnel_away" in orjson.dumps(why).decode()
