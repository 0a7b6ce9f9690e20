"""Alerts: a problem is told when it is new, while it stays, and when it is over, by one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import orjson
import psycopg
import pytest
from pydantic import SecretStr
from starlette.responses import JSONResponse, Response

from tests.receiver import Received, Receiver
from triggerkit.settings import Settings
from triggerkit.signature import new_secret, verify
from triggerkit.supervisor.alerts import known
from triggerkit.supervisor.alerts.known import seen_in
from triggerkit.supervisor.alerts.sender import keep_alerting

LOOK_S = 0.05

SECRET = new_secret()


@pytest.fixture(autouse=True)
def settles_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "SETTLE_S", 0.4)


@asynccontextmanager
async def alerting(
    settings: Settings, receiver: Receiver, again: str = "1h", processes: int = 1
) -> AsyncIterator[None]:
    told = settings.model_copy(
        update={
            "triggerkit_alerts_url": SecretStr(f"{receiver.url}/push"),
            "triggerkit_alerts_secret": SecretStr(SECRET),
            "triggerkit_alerts_again": again,
        }
    )
    tasks = [asyncio.create_task(keep_alerting(told, LOOK_S)) for _ in range(processes)]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def execute(settings: Settings, statement: str) -> None:
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def pause(settings: Settings, queue: str = "letters") -> None:
    execute(settings, f"INSERT INTO triggerkit.queues (name, paused_at) VALUES ('{queue}', now())")


def resume(settings: Settings) -> None:
    execute(settings, "DELETE FROM triggerkit.queues")


def types(receiver: Receiver) -> list[str]:
    return [orjson.loads(request.body)["type"] for request in receiver.requests]


def test_a_problem_is_told_when_new_and_when_over_and_signed(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver, alerting(settings, receiver):
            pause(settings)
            await receiver.until(lambda: types(receiver) == ["problem.new"])
            [new] = receiver.requests
            data = orjson.loads(new.body)["data"]
            assert (data["kind"], data["name"], data["problem"]) == (
                "queue",
                "letters",
                "queue_paused",
            )
            assert data["severity"] == "warning"
            assert data["remedy"] == "triggerkit queues resume letters"
            headers = new.headers
            assert verify(
                [SECRET],
                headers["webhook-id"],
                headers["webhook-timestamp"],
                headers["webhook-signature"],
                new.body,
                time.time(),
            )
            resume(settings)
            await receiver.until(lambda: types(receiver) == ["problem.new", "problem.over"])
            await asyncio.sleep(10 * LOOK_S)
        assert len(receiver.requests) == 2

    asyncio.run(scenario())


def test_what_stays_is_told_again(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver, alerting(settings, receiver, again="1s"):
            pause(settings)
            await receiver.until(lambda: len(receiver.requests) == 3)
        assert types(receiver) == ["problem.new", "problem.still", "problem.still"]
        assert len({request.batch_id for request in receiver.requests}) == 3

    asyncio.run(scenario())


def test_what_lasts_a_moment_is_not_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than a busy machine takes for a look and two statements.
    monkeypatch.setattr(known, "SETTLE_S", 4.0)

    async def scenario() -> None:
        async with Receiver.start() as receiver, alerting(settings, receiver):
            pause(settings)
            await asyncio.sleep(0.2)
            resume(settings)
            pause(settings, "others")
            await receiver.until(lambda: len(receiver.requests) == 1)
            assert orjson.loads(receiver.requests[0].body)["data"]["name"] == "others"

    asyncio.run(scenario())


def test_several_processes_tell_once_and_one_goes_on_for_another(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            async with alerting(settings, receiver, processes=3):
                pause(settings)
                await receiver.until(lambda: types(receiver) == ["problem.new"])
                await asyncio.sleep(10 * LOOK_S)
            async with alerting(settings, receiver, processes=2):
                await asyncio.sleep(20 * LOOK_S)
                assert types(receiver) == ["problem.new"]
                resume(settings)
                await receiver.until(lambda: types(receiver) == ["problem.new", "problem.over"])

    asyncio.run(scenario())


def test_an_alert_that_is_not_taken_is_sent_again_as_it_was(settings: Settings) -> None:
    async def refuse(_: Received) -> Response:
        return JSONResponse({}, 500)

    async def take(_: Received) -> Response:
        return JSONResponse({})

    async def scenario() -> None:
        async with Receiver.start(refuse) as receiver, alerting(settings, receiver):
            pause(settings)
            await receiver.until(lambda: len(receiver.requests) >= 3)
            receiver.answer = take
            count = len(receiver.requests)
            await receiver.until(lambda: len(receiver.requests) > count)
            await asyncio.sleep(10 * LOOK_S)
            assert len({request.batch_id for request in receiver.requests}) == 1
            assert set(types(receiver)) == {"problem.new"}

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [400, 413, 500])
def test_an_alert_that_is_refused_holds_up_no_other(settings: Settings, status: int) -> None:
    def named(received: Received) -> str:
        return str(orjson.loads(received.body)["data"]["name"])

    async def answer(received: Received) -> Response:
        return JSONResponse({}, status if named(received) == "first" else 200)

    async def scenario() -> None:
        async with Receiver.start(answer) as receiver, alerting(settings, receiver):
            pause(settings, "first")
            await receiver.until(lambda: len(receiver.requests) >= 2)
            pause(settings, "second")
            await receiver.until(lambda: [*map(named, receiver.requests)].count("second") == 1)
            resume(settings)
            await receiver.until(lambda: [*map(named, receiver.requests)].count("second") == 2)

    asyncio.run(scenario())


def test_nothing_is_looked_at_without_a_receiver(settings: Settings) -> None:
    asyncio.run(asyncio.wait_for(keep_alerting(settings), 1))


def test_a_state_that_is_away_ends_nothing(settings: Settings) -> None:
    away = settings.model_copy(
        update={
            "triggerkit_state_url": SecretStr("postgresql://127.0.0.1:1/nothing"),
            "triggerkit_alerts_url": SecretStr("http://127.0.0.1:1/"),
        }
    )

    async def scenario() -> None:
        task = asyncio.create_task(keep_alerting(away, LOOK_S))
        await asyncio.sleep(0.5)
        assert not task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_problems_of_one_thing_by_one_name_are_one() -> None:
    problem = {"name": "waits", "severity": "warning", "detail": "a", "remedy": "do"}
    other = {**problem, "severity": "error", "detail": "b"}
    advice = {**problem, "name": "advised", "severity": "advice"}
    health: dict[str, list[dict[str, object]]] = {kind: [] for kind in known.KINDS}
    health["queues"] = [{"name": "q", "problems": [problem, other, advice]}]
    health["waiting"] = [{"task": "t", "problems": [problem]}]
    found = {(one.kind, one.subject): one for one in seen_in(health)}
    assert found["queue", "q"].severity == "error"
    assert found["queue", "q"].detail == "a; b"
    assert ("task", "t") in found
    assert len(found) == 2
