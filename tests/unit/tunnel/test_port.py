"""A push reaches the given port of this machine, and nothing else, whatever the server says."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest
from starlette.responses import JSONResponse, Response

from tests.ports import free_port
from tests.receiver import Received, Receiver
from triggerkit.tunnel.deliveries import Deliveries, Delivery
from triggerkit.tunnel.port import Ports
from triggerkit.tunnel.wire import Push


def push(path: str = "/push", endpoint: str = "a", timeout_s: float = 5.0, **more: bool) -> Push:
    headers = {"webhook-id": "msg_1", "content-type": "application/json"}
    return Push(1, endpoint, path, headers, 2, timeout_s, **more)


@pytest.mark.parametrize(
    "path",
    ["/x", "//evil.example/x", "@evil.example/", ":80/", "/@evil.example", "http://evil.example/",
     "\\\\evil.example", "/x#y"],
)  # fmt: skip
def test_no_path_leads_to_another_host_or_port(path: str) -> None:
    parts = urlsplit(Ports({"a": 3001}).url("a", path))
    assert (parts.scheme, parts.hostname, parts.port) == ("http", "localhost", 3001)
    assert parts.username is None


def test_an_endpoint_that_was_not_asked_for_has_no_port() -> None:
    outcome = asyncio.run(Ports({"a": 3001}).deliver(push(endpoint="b"), b"{}"))
    assert outcome.response is None
    assert not outcome.is_closed


def test_a_closed_port_a_slow_app_and_a_good_one() -> None:
    async def slow(_received: Received) -> Response:
        await asyncio.sleep(5)
        return JSONResponse({})

    async def scenario() -> None:
        closed = await Ports({"a": free_port()}).deliver(push(), b"{}")
        assert closed.is_closed
        async with Receiver.start() as app:
            ports = Ports({"a": int(app.url.rpartition(":")[2])})
            assert (await ports.deliver(push(), b"{}")).is_taken
            app.answer = slow
            late = await ports.deliver(push(timeout_s=0.1), b"{}")
            assert (late.error, late.is_closed) == ("no answer within 0.1 s", False)
            ports.close()

    asyncio.run(scenario())


def test_a_push_that_comes_again_meanwhile_is_delivered_once() -> None:
    may_answer = asyncio.Event()

    async def late(_received: Received) -> Response:
        await may_answer.wait()
        return JSONResponse({}, 200)

    async def scenario() -> None:
        told: list[Delivery] = []
        async with Receiver.start(late) as app:
            ports = Ports({"a": int(app.url.rpartition(":")[2])})
            deliveries = Deliveries(ports, told.append)
            first = asyncio.create_task(deliveries.deliver(push(), b"{}"))
            await app.until(lambda: len(app.requests) == 1)
            # Its connection ends, and the server sends it again over the next.
            first.cancel()
            second = asyncio.create_task(deliveries.deliver(push(), b"{}"))
            await asyncio.sleep(0)
            may_answer.set()
            assert (await second).is_taken
            third = await deliveries.deliver(push(), b"{}")
            assert third.is_taken
            assert (len(app.requests), len(told)) == (1, 1)
            # Once its answer was sent, what comes is another attempt; so it is with another body.
            deliveries.answered(push(), b"{}")
            await deliveries.deliver(push(), b"{}")
            await deliveries.deliver(push(), b'{"data": []}')
            await deliveries.deliver(push(again=True), b"{}")
            assert len(app.requests) == 4
            await deliveries.close()

    asyncio.run(scenario())


def test_a_push_that_failed_is_tried_again() -> None:
    async def fail(_received: Received) -> Response:
        return JSONResponse({}, 500)

    async def scenario() -> None:
        async with Receiver.start(fail) as app:
            ports = Ports({"a": int(app.url.rpartition(":")[2])})
            deliveries = Deliveries(ports, lambda _: None)
            for _ in range(2):
                assert not (await deliveries.deliver(push(), b"{}")).is_taken
            assert len(app.requests) == 2
            await deliveries.close()

    asyncio.run(scenario())
