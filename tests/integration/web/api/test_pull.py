"""The pull API over real HTTP: answers, limits, long polls, and a `serve` that is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from pydantic import SecretStr

from tests.integration.consumers.pull.pulling import Pulling, pulling
from tests.integration.pipeline import execute
from tests.integration.serving import Answer, Site, serving
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import changes
from triggerkit.consumers.pull.service import Puller
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.stream import run_stream
from triggerkit.web.api import pull as pull_module
from triggerkit.web.application import Application

KEY = "a management key for the tests only"
AUTHORIZED = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}


def post(site: Site, operation: str, body: Any, name: str = "items", **headers: str) -> Answer:
    given = {**AUTHORIZED, **headers}
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return site.request("POST", f"/api/v1/consumers/{name}/{operation}", raw, given)


async def call(site: Site, operation: str, **body: Any) -> Any:
    """A call that must succeed, beside others."""
    answer = await asyncio.to_thread(post, site, operation, body)
    assert answer.status == 200, answer
    return answer.json


@pytest.fixture
def keyed(settings: Settings) -> Settings:
    """Settings with a management key."""
    return settings.model_copy(update={"triggerkit_secret_key": SecretStr(KEY)})


@asynccontextmanager
async def pulled_site(settings: Settings, **options: Any) -> AsyncIterator[tuple[Pulling, Site]]:
    async with pulling(settings.state_dsn, changes("items", **options)) as pull:
        with serving(Application(settings, [], None)) as site:
            yield pull, site


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}])
def test_without_the_key_nothing_is_answered(keyed: Settings, headers: dict[str, str]) -> None:
    with serving(Application(keyed, [], None)) as site:
        for operation in ("receive", "ack", "nack", "extend"):
            answer = site.request("POST", f"/api/v1/consumers/items/{operation}", b"{}", headers)
            assert answer.status == 401
            assert answer.json == {"error": "Unauthorized"}


def test_without_a_key_in_the_settings_nobody_is_let_in(settings: Settings) -> None:
    with serving(Application(settings, [], None)) as site:
        assert post(site, "receive", {}).status == 401
        assert post(site, "receive", {}, authorization="Bearer ").status == 401


def test_messages_are_received_acknowledged_handed_back_and_held_on_to(keyed: Settings) -> None:
    async def scenario() -> None:
        async with pulled_site(keyed) as (pull, site):
            await pull.log([1, 2, 3])
            data = (await call(site, "receive", batch_size=10))["data"]
            assert sorted(message["record"]["id"] for message in data) == [1, 2, 3]
            assert list(data[0]) == ["ack_id", "record", "changes", "action", "metadata"]
            first, *others = [message["ack_id"] for message in data]
            assert await call(site, "extend", ack_ids=[first], seconds=60) == {"success": True}
            assert await call(site, "nack", ack_ids=[first], delay="0s") == {"success": True}
            assert await call(site, "ack", ack_ids=others) == {"success": True}
            again = (await call(site, "receive"))["data"]
            assert again[0]["metadata"] == data[0]["metadata"]
            stale = [first, "nonsense", "0.x.1", "9.aaaaaaaaaaaaaaaa.1", ""]
            told = await call(site, "ack", ack_ids=[again[0]["ack_id"], *stale])
            assert told["success"] is True
            assert sorted(told["stale"]) == sorted(stale)

    asyncio.run(scenario())


def test_what_does_not_fit_is_told_by_its_path(keyed: Settings) -> None:
    async def scenario() -> None:
        async with pulled_site(keyed) as (_, site):
            for operation, body, path in (
                ("receive", {"batch_size": 0}, ["batch_size"]),
                ("receive", {"batch_size": 1001}, ["batch_size"]),
                ("receive", {"wait_for": "5 minutes"}, ["wait_for"]),
                ("receive", {"wait_for": "301s"}, ["wait_for"]),
                ("receive", {"wait_for": True}, ["wait_for"]),
                ("receive", {"batchsize": 1}, ["batchsize"]),
                ("ack", {}, ["ack_ids"]),
                ("ack", {"ack_ids": [1]}, ["ack_ids", 0]),
                ("nack", {"ack_ids": ["a"], "delay": -1}, ["delay"]),
                ("extend", {"ack_ids": ["a"], "seconds": 0}, ["seconds"]),
            ):
                answer = post(site, operation, body)
                assert answer.status == 422, (operation, body)
                assert [problem["loc"] for problem in answer.json["detail"]] == [path]
            assert post(site, "receive", b"{").status == 400
            assert post(site, "ack", b"x" * (pull_module.MAX_BODY_BYTES + 1)).status == 413

    asyncio.run(scenario())


def test_consumers_that_are_not_there_or_not_pulled_are_told(keyed: Settings) -> None:
    async def scenario() -> None:
        async with pulled_site(keyed) as (pull, site):
            unknown = post(site, "receive", {}, name="nobody")
            assert unknown.status == 404
            assert "there are items" in unknown.json["error"]
            await pull.execute("UPDATE triggerkit.consumers SET state = 'paused'")
            assert post(site, "receive", {}).status == 409
            await pull.execute(
                "WITH e AS (INSERT INTO triggerkit.endpoints (name, url) VALUES ('e', 'http://e') "
                "RETURNING id) UPDATE triggerkit.consumers SET endpoint_id = (SELECT id FROM e)"
            )
            for operation, body in (("receive", {}), ("ack", {"ack_ids": ["a"]})):
                answer = post(site, operation, body)
                assert answer.status == 409
                assert "is pushed to an endpoint" in answer.json["error"]

    asyncio.run(scenario())


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


@contextmanager
def serve_process(settings: Settings, folder: Path) -> Iterator[tuple[Site, int]]:
    """`triggerkit serve` as a process: its site and its id."""
    (folder / "triggerkit.toml").write_text("tasks = []\n")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    assert settings.database_url
    assert settings.redis_url
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TRIGGERKIT_")},
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "TRIGGERKIT_WEBHOOK_SECRET": "a webhook secret for the tests only",
        "TRIGGERKIT_SECRET_KEY": KEY,
        "TRIGGERKIT_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "triggerkit", "serve"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout
        assert any(b"ready" in line for line in process.stdout)
        yield Site(port), process.pid
    finally:
        process.kill()
        process.communicate()


def test_what_a_killed_serve_handed_out_comes_again_from_another(
    keyed: Settings, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with pulling(keyed.state_dsn, changes("items", timeout_s=2)) as pull:
            await pull.log(range(1, 51))
            with serve_process(keyed, tmp_path) as (site, pid):
                first = (await call(site, "receive", batch_size=100))["data"]
                assert len(first) == 50
                os.kill(pid, signal.SIGKILL)
            with serve_process(keyed, tmp_path) as (site, _):
                again: list[Any] = []
                async with asyncio.timeout(30):
                    while len(again) < 50:
                        found = await call(site, "receive", batch_size=100, wait_for="10s")
                        again += found["data"]
                        await call(site, "ack", ack_ids=[m["ack_id"] for m in found["data"]])

                def keys(messages: list[Any]) -> list[str]:
                    return sorted(m["metadata"]["idempotency_key"] for m in messages)

                assert keys(again) == keys(first)
                assert await call(site, "receive") == {"data": []}

    asyncio.run(scenario())


def test_lost_connections_are_told_and_made_again(keyed: Settings) -> None:
    async def scenario() -> None:
        async with pulled_site(keyed) as (pull, site):
            await call(site, "receive")
            with psycopg.connect(pull.url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name = 'triggerkit pull'"
                )
            answer = post(site, "receive", {})
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            assert "state database" in answer.json["error"]
            await call(site, "receive")

    asyncio.run(scenario())
