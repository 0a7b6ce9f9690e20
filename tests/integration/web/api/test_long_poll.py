"""Receives that wait: woken by a commit, a lease's end or a due message, never by looking."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from http.client import HTTPConnection
from typing import Any

import orjson
import pytest

from tests.integration.pipeline import execute
from tests.integration.serving import serving
from tests.integration.web.api.pulled import AUTHORIZED, call, post, pulled_site
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import changes
from triggerkit.consumers.pull.service import Puller
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.stream import run_stream
from triggerkit.web.api import pull as pull_module
from triggerkit.web.application import Application


@asynccontextmanager
async def streaming_items(settings: Settings) -> AsyncIterator[None]:
    """A stream that captures `items` for a consumer that is pulled."""
    await execute(settings, "CREATE TABLE items (id bigint PRIMARY KEY, v int)")
    async with (
        await connect(settings.source_dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        declared = Declared("items", changes("items", timeout_s=1), managed_by="file")
        await apply(source, state, [declared], settings.public_url)
    ready = asyncio.Event()
    stream = asyncio.create_task(run_stream(settings, ready.set))
    await ready.wait()
    try:
        yield
    finally:
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When messages were looked for."""
    noted: list[float] = []
    look = Puller._try

    async def noting(*given: Any) -> Any:
        noted.append(time.monotonic())
        return await look(*given)

    monkeypatch.setattr(Puller, "_try", noting)
    return noted


def has_tried(tries: list[float], count: int) -> bool:
    return len(tries) >= count


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - what is counted is in another thread
            await asyncio.sleep(0.005)


def test_a_long_poll_returns_with_the_commit_and_looks_at_nothing_meanwhile(
    keyed: Settings, tries: list[float]
) -> None:
    async def scenario() -> None:
        async with streaming_items(keyed):
            with serving(Application(keyed, [], None)) as site:
                took = []
                for row in range(1, 6):
                    before = len(tries)
                    waiting = asyncio.create_task(call(site, "receive", wait_for="60s"))
                    await until(partial(has_tried, tries, before + 2))
                    # Long enough for whoever polls to be caught.
                    await asyncio.sleep(0.3)
                    assert len(tries) <= before + 3
                    await execute(keyed, f"INSERT INTO items VALUES ({row}, 0)")
                    committed = time.monotonic()
                    data = (await waiting)["data"]
                    took.append(time.monotonic() - committed)
                    assert [message["record"]["id"] for message in data] == [row]
                    await call(site, "ack", ack_ids=[message["ack_id"] for message in data])
                assert sorted(took)[2] < 0.1, took

    asyncio.run(scenario())


def test_a_long_poll_wakes_up_when_a_lease_ends(keyed: Settings) -> None:
    async def scenario() -> None:
        async with pulled_site(keyed, timeout_s=0.3) as (pull, site):
            await pull.log([1, 1])
            started = time.monotonic()
            first = (await call(site, "receive"))["data"]
            again = (await call(site, "receive", wait_for=20_000))["data"]
            assert again[0]["metadata"] == first[0]["metadata"]
            assert 0.3 <= time.monotonic() - started < 5
            waiting = asyncio.create_task(call(site, "receive", wait_for=20_000))
            await call(site, "ack", ack_ids=[again[0]["ack_id"]])
            assert (await waiting)["data"][0]["record"]["v"] == 1

    asyncio.run(scenario())


def test_a_long_poll_wakes_up_when_what_was_handed_back_is_due(keyed: Settings) -> None:
    async def scenario() -> None:
        async with pulled_site(keyed) as (pull, site):
            await pull.log([1])
            first = (await call(site, "receive"))["data"]
            waiting = asyncio.create_task(call(site, "receive", wait_for="20s"))
            handed_back = time.monotonic()
            await call(site, "nack", ack_ids=[first[0]["ack_id"]], delay=300)
            assert (await waiting)["data"][0]["record"]["id"] == 1
            assert 0.29 <= time.monotonic() - handed_back < 5

    asyncio.run(scenario())


def test_a_long_poll_ends_empty_when_its_time_is_up(keyed: Settings) -> None:
    async def scenario() -> None:
        async with pulled_site(keyed) as (_, site):
            assert await call(site, "receive", wait_for=50) == {"data": []}

    asyncio.run(scenario())


def test_who_hangs_up_while_waiting_gets_no_lease(keyed: Settings, tries: list[float]) -> None:
    async def scenario() -> None:
        async with streaming_items(keyed):
            application = Application(keyed, [], None)
            with serving(application) as site:
                connection = HTTPConnection("127.0.0.1", site.port)
                body = orjson.dumps({"wait_for": "60s"})
                path = "/api/v1/consumers/items/receive"
                await asyncio.to_thread(connection.request, "POST", path, body, AUTHORIZED)
                await until(lambda: len(tries) == 2)
                assert application._pull._waiting == 1
                connection.close()
                await until(lambda: application._pull._waiting == 0)
                await execute(keyed, "INSERT INTO items VALUES (1, 0)")
                data = (await call(site, "receive", wait_for="10s"))["data"]
                assert [message["record"]["id"] for message in data] == [1]

    asyncio.run(scenario())


def test_only_so_many_receives_wait(keyed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull_module, "MAX_WAITING", 0)

    async def scenario() -> None:
        async with pulled_site(keyed) as (_, site):
            answer = post(site, "receive", {"wait_for": 1000})
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            assert post(site, "receive", {}).status == 200

    asyncio.run(scenario())
