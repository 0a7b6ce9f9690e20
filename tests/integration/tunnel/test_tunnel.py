"""Messages of a local endpoint go through the tunnel, and wait while there is none."""

from __future__ import annotations

import asyncio

from standardwebhooks import Webhook
from starlette.responses import JSONResponse, Response

from tests.faults.rig.proxy import Proxy
from tests.integration.pipeline import execute
from tests.integration.tunnel.world import (
    BEARER,
    ENDPOINT,
    SIGNING,
    declare,
    in_order,
    laptop,
    names,
    port_of,
    rows,
    streaming,
    token_of,
    until_rows,
)
from tests.ports import free_port
from tests.receiver import Received, Receiver
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings


def test_what_waited_is_delivered_signed_once_a_tunnel_opens(keyed: Settings, port: int) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items", batch_size=10))
        async with streaming(keyed), Receiver.start() as app:
            await execute(keyed, "INSERT INTO items SELECT i, i FROM generate_series(1, 30) i")
            await until_rows(keyed, "SELECT count(*) FROM triggerkit.events", [(30,)])
            async with laptop(port, await token_of(keyed, "alice"), {ENDPOINT: port_of(app)}) as it:
                [opened] = it.readies[0].tunnels
                assert (opened.endpoint, opened.path, opened.waiting) == (ENDPOINT, "/push", 30)
                await app.until(lambda: len(app.messages) == 30)
                # What waited for a tunnel was no attempt.
                assert {r.headers["triggerkit-attempt"] for r in app.requests} == {"1"}
                for request in app.requests:
                    Webhook(SIGNING).verify(request.body, request.headers)
                    assert request.headers["authorization"] == BEARER
                    assert request.headers["host"] == f"localhost:{port_of(app)}"
                await it.until(lambda: len(it.deliveries) == len(app.requests))
                assert all(d.outcome.is_taken for d in it.deliveries)
        failed = await rows(keyed, "SELECT FROM triggerkit.deliveries WHERE status <> 200")
        assert not failed

    asyncio.run(scenario())


def test_a_line_that_is_cut_loses_nothing_and_repeats_nothing(keyed: Settings, port: int) -> None:
    """The app takes a push whose answer cannot be sent: it does not get it again."""

    async def scenario() -> None:
        await declare(keyed, changes("items", batch_size=5))
        may_answer, took = asyncio.Event(), asyncio.Event()

        async def late(_received: Received) -> Response:
            took.set()
            await may_answer.wait()
            return JSONResponse({})

        async with streaming(keyed), Receiver.start(late) as app, Proxy.before(port) as proxy:
            token = await token_of(keyed, "alice")
            async with laptop(proxy.port, token, {ENDPOINT: port_of(app)}) as it:
                await execute(keyed, "INSERT INTO items VALUES (1, '1')")
                async with asyncio.timeout(20):
                    await took.wait()
                proxy.end_all()
                await it.until(lambda: bool(it.losses))
                for version in range(2, 40):
                    await execute(keyed, f"UPDATE items SET name = '{version}'")
                may_answer.set()
                await it.until(lambda: len(it.readies) == 2)
                await app.until(lambda: names(app)[-1] == "39")
        assert [int(name) for name in names(app)] == list(range(1, 40))

    asyncio.run(scenario())


def test_a_line_that_is_cut_again_and_again_keeps_the_order_of_each_row(
    keyed: Settings, port: int
) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items", batch_size=5))
        async with streaming(keyed), Receiver.start() as app, Proxy.before(port) as proxy:
            token = await token_of(keyed, "alice")
            async with laptop(proxy.port, token, {ENDPOINT: port_of(app)}) as it:
                await execute(keyed, "INSERT INTO items SELECT i, 0 FROM generate_series(1, 20) i")
                for version in range(1, 41):
                    await execute(keyed, f"UPDATE items SET name = {version}")
                    if version % 10 == 0:
                        count = len(it.readies)
                        proxy.end_all()
                        await it.until(lambda n=count: len(it.readies) > n)  # type: ignore[misc]
                await app.until(lambda: names(app).count("40") >= 20, 60)
        assert in_order(app)
        assert {(m["record"]["id"], m["record"]["name"]) for m in app.messages} == {
            (key, str(version)) for key in range(1, 21) for version in range(41)
        }

    asyncio.run(scenario())


def test_a_closed_port_is_told_as_502_and_tried_again_until_it_is_open(
    keyed: Settings, port: int
) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items", max_attempts=1))
        async with streaming(keyed):
            closed = free_port()
            token = await token_of(keyed, "alice")
            async with laptop(port, token, {ENDPOINT: closed}) as it:
                await execute(keyed, "INSERT INTO items VALUES (1, 'first')")
                await it.until(lambda: bool(it.deliveries))
                assert it.deliveries[0].outcome.error == f"nothing listens on port {closed}"
                await it.until(lambda: len(it.deliveries) == 2)
            found = await rows(keyed, "SELECT status, error FROM triggerkit.deliveries LIMIT 1")
            assert found == [(502, f"nothing listens on port {closed}")]
            async with (
                Receiver.start() as app,
                laptop(port, token, {ENDPOINT: port_of(app)}),
            ):
                # At once: a new tunnel ends the wait for the next attempt.
                await app.until(lambda: names(app) == ["first"])
        assert not await rows(keyed, "SELECT FROM triggerkit.parked")

    asyncio.run(scenario())


def test_a_large_body_comes_over_a_slow_line_beside_small_ones(keyed: Settings, port: int) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items", timeout_s=3))
        async with streaming(keyed), Receiver.start() as app, Proxy.before(port) as proxy:
            token = await token_of(keyed, "alice")
            async with laptop(proxy.port, token, {ENDPOINT: port_of(app)}) as it:
                # Longer under way than the deadline of the push, which is the app's alone.
                proxy.rate = 1024 * 1024
                text = "SELECT string_agg(md5(i::text), '') FROM generate_series(1, 160000) i"
                await execute(keyed, f"INSERT INTO items VALUES (1, ({text}))")
                await execute(keyed, "INSERT INTO items SELECT i, i FROM generate_series(2, 9) i")
                await app.until(lambda: len(app.messages) == 9, 60)
                assert not it.losses
        large = next(m for m in app.messages if m["record"]["id"] == 1)
        assert len(large["record"]["name"]) == 160_000 * 32
        # Small ones of other partitions went past it.
        assert app.messages[0] is not large

    asyncio.run(scenario())


def test_one_command_has_several_endpoints_on_several_ports(keyed: Settings, port: int) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items"), names=("first", "second"))
        async with streaming(keyed), Receiver.start() as one, Receiver.start() as two:
            ports = {"first": port_of(one), "second": port_of(two)}
            async with laptop(port, await token_of(keyed, "alice"), ports):
                await execute(keyed, "INSERT INTO items VALUES (1, 'x')")
                await one.until(lambda: names(one) == ["x"])
                await two.until(lambda: names(two) == ["x"])
        assert one.requests[0].headers["x-endpoint"] == "first"
        assert two.requests[0].headers["x-endpoint"] == "second"

    asyncio.run(scenario())


def test_the_last_push_is_sent_again_by_its_id_with_a_signature_of_now(
    keyed: Settings, port: int
) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items"))
        token = await token_of(keyed, "alice")
        async with (
            streaming(keyed),
            Receiver.start() as app,
            laptop(port, token, {ENDPOINT: port_of(app)}) as it,
        ):
            await execute(keyed, "INSERT INTO items VALUES (1, 'x')")
            await it.until(lambda: bool(it.deliveries))
            assert await it.connection.again(it.deliveries[0].batch_id)
            await app.until(lambda: len(app.requests) == 2)
            await it.until(lambda: len(it.deliveries) == 2)
            assert it.deliveries[1].push.again
        first, second = app.requests
        assert (first.batch_id, first.body) == (second.batch_id, second.body)
        Webhook(SIGNING).verify(second.body, second.headers)

    asyncio.run(scenario())
