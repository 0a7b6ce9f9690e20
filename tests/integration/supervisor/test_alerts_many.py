"""Alerts of hundreds of problems at once, to receivers that hang or refuse, over clocks that are
put back."""

from __future__ import annotations

import asyncio

import orjson
import psycopg
import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.supervisor.test_alerts import (
    LOOK_S,
    alerting,
    execute,
    pause,
    resume,
    types,
)
from tests.receiver import Received, Receiver
from triggerkit.settings import Settings
from triggerkit.supervisor.alerts import known, sender
from triggerkit.supervisor.alerts.known import seen_in

PROBLEMS = 240


@pytest.fixture(autouse=True)
def settles_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "SETTLE_S", 0.4)


def pause_many(settings: Settings) -> None:
    execute(
        settings,
        "INSERT INTO triggerkit.queues (name, paused_at) "
        f"SELECT 'q' || lpad(n::text, 3, '0'), now() FROM generate_series(1, {PROBLEMS}) n",
    )


def told(received: Received) -> tuple[str, str]:
    body = orjson.loads(received.body)
    return body["type"], body["data"]["name"]


def noted(settings: Settings) -> bool:
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        return connection.execute("SELECT FROM triggerkit.alerts WHERE told = 1").rowcount == 1


@pytest.mark.parametrize("status", [410, 413, 500])
def test_what_is_never_taken_keeps_none_of_hundreds_from_being_told(
    settings: Settings, status: int
) -> None:
    refused = {f"q{n:03}" for n in range(1, 121)}
    others = {f"q{n:03}" for n in range(121, PROBLEMS + 1)}

    async def answer(received: Received) -> Response:
        return JSONResponse({}, status if told(received)[1] in refused else 200)

    async def scenario() -> None:
        async with Receiver.start(answer) as receiver, alerting(settings, receiver):
            pause_many(settings)
            new = {("problem.new", name) for name in others}
            await receiver.until(lambda: new <= set(map(told, receiver.requests)), 60)
            resume(settings)
            over = {("problem.over", name) for name in others}
            await receiver.until(lambda: over <= set(map(told, receiver.requests)), 60)
            taken = [one for one in map(told, receiver.requests) if one[1] in others]
            assert sorted(taken) == sorted(new | over)

    asyncio.run(scenario())


def test_an_alert_at_which_the_receiver_hangs_keeps_none_from_being_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "TIMEOUT_S", 0.3)

    async def answer(received: Received) -> Response:
        if told(received)[1] == "first":
            await asyncio.sleep(60)
        return JSONResponse({})

    async def scenario() -> None:
        async with Receiver.start(answer) as receiver, alerting(settings, receiver):
            pause(settings, "first")
            await receiver.until(lambda: len(receiver.requests) >= 2)
            pause(settings, "second")
            pause(settings, "third")
            await receiver.until(
                lambda: {"second", "third"} <= {told(one)[1] for one in receiver.requests}
            )

    asyncio.run(scenario())


def test_a_slow_receiver_keeps_nobody_from_looking(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "LOOK_S", 0.3)

    async def answer(_: Received) -> Response:
        await asyncio.sleep(0.1)
        return JSONResponse({})

    async def scenario() -> None:
        async with Receiver.start(answer) as receiver, alerting(settings, receiver):
            pause_many(settings)
            await receiver.until(lambda: len(receiver.requests) >= 3)
            resume(settings)
            await receiver.until(lambda: "problem.over" in types(receiver))
            # What ended before it was told is told of by nobody, or by its end.
            assert len(receiver.requests) < PROBLEMS / 2

    asyncio.run(scenario())


def test_a_problem_that_is_back_before_its_end_was_taken_is_told_at_once(
    settings: Settings,
) -> None:
    async def refuse_ends(received: Received) -> Response:
        return JSONResponse({}, 500 if told(received)[0] == "problem.over" else 200)

    async def scenario() -> None:
        async with Receiver.start(refuse_ends) as receiver, alerting(settings, receiver):
            pause(settings)
            await receiver.until(lambda: types(receiver) == ["problem.new"])
            resume(settings)
            await receiver.until(lambda: "problem.over" in types(receiver))
            pause(settings)
            await receiver.until(lambda: types(receiver)[-1] == "problem.still")
            first = {one.batch_id for one in receiver.requests}
            resume(settings)
            await receiver.until(lambda: types(receiver)[-1] == "problem.over")
            # Who leaves out what it knows by its id takes this one for another.
            assert receiver.requests[-1].batch_id not in first

    asyncio.run(scenario())


def test_a_clock_that_was_put_back_holds_nothing_up(settings: Settings) -> None:
    later = "clock_timestamp() + interval '1 day'"

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            pause(settings)
            async with alerting(settings, receiver):
                await receiver.until(lambda: types(receiver) == ["problem.new"])
                while not noted(settings):  # noqa: ASYNC110 - it is in a table
                    await asyncio.sleep(LOOK_S)
            execute(settings, f"UPDATE triggerkit.alerts SET seen_at = {later}, told_at = {later}")
            execute(
                settings,
                "INSERT INTO triggerkit.alerts (kind, subject, problem, severity, detail, remedy, "
                "since, seen_at) VALUES "
                f"('queue', 'others', 'queue_paused', 'warning', '', '', {later}, {later})",
            )
            resume(settings)
            pause(settings, "others")
            async with alerting(settings, receiver):
                await receiver.until(lambda: len(receiver.requests) == 3)
                assert {told(one) for one in receiver.requests[1:]} == {
                    ("problem.over", "letters"),
                    ("problem.new", "others"),
                }
                await asyncio.sleep(10 * LOOK_S)
            assert len(receiver.requests) == 3

    asyncio.run(scenario())


def test_what_is_said_is_bounded_and_names_of_any_length_are_told(settings: Settings) -> None:
    name = "é" * 4000
    health: dict[str, list[dict[str, object]]] = {kind: [] for kind in known.KINDS}
    health["queues"] = [
        {
            "name": end + name + end,
            "problems": [
                {"name": "waits", "severity": "error", "detail": "d" * 9000, "remedy": "r" * 9000}
            ]
            * 9,
        }
        for end in ("a", "b")
    ]
    seen = seen_in(health)
    assert len(seen) == 2

    async def remembered() -> list[known.Alert]:
        async with await psycopg.AsyncConnection.connect(
            settings.state_dsn, autocommit=True
        ) as connection:
            await known.remember(connection, seen)
            await asyncio.sleep(0.5)
            await known.remember(connection, seen)
            return await known.due(connection, 60)

    alerts = asyncio.run(remembered())
    assert len(alerts) == 2
    assert all(len(sender.body_of(alert, "http://localhost")) < 8000 for alert in alerts)
