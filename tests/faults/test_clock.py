"""The machine's clock is set forward and back by ten minutes: nothing is early, late or lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from email.utils import formatdate

import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.pipeline import declare, execute, streaming
from tests.integration.run_state import new_run, run_state
from tests.receiver import Received, Receiver
from triggerkit.consumers.definition import changes
from triggerkit.runs.keeper.keeper import Keeper
from triggerkit.runs.keeper.liveness import FailureDetector
from triggerkit.runs.keeper.processes import ExecutingProcesses
from triggerkit.runs.keeper.retention import Retention
from triggerkit.runs.session import by_index
from triggerkit.runs.transport.open import open_transport
from triggerkit.settings import Settings
from triggerkit.state.connect import pinned

TABLE = "CREATE TABLE items (id bigint PRIMARY KEY, name text)"

#: Seconds by which the clock is set, one after the other.
STEPS_S = (600, -1200, 1200, -600)

#: Sets the clock forward by so many seconds, or back.
SetClock = Callable[[float], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Steps the clock that `time.time` reads; the one that only goes forward stays."""
    offset_s, true_time = 0.0, time.time

    def step(seconds: float) -> None:
        nonlocal offset_s
        offset_s += seconds

    monkeypatch.setattr(time, "time", lambda: true_time() + offset_s)
    return step


def test_deliveries_and_their_retries_take_no_notice(
    settings: Settings, set_clock: SetClock, caplog: pytest.LogCaptureFixture
) -> None:
    true_time = formatdate(usegmt=True)
    failures = 0

    async def fail_once(received: Received) -> Response:
        nonlocal failures
        if received.headers["triggerkit-attempt"] != "1":
            return JSONResponse({})
        failures += 1
        # A date of the receiver's own clock, which was not set.
        return JSONResponse({}, 503, headers={"retry-after": true_time, "date": true_time})

    async def scenario() -> None:
        async with Receiver.start(fail_once) as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", batch_size=10))
            async with streaming(settings, receiver):
                for number, step_s in enumerate(STEPS_S):
                    set_clock(step_s)
                    await execute(settings, f"INSERT INTO items VALUES ({number})")
                    await receiver.until(
                        lambda n=number: len(receiver.requests) >= 2 * (n + 1),  # type: ignore[misc]
                        timeout_s=5,
                    )
            assert failures == len(STEPS_S)
            assert len(receiver.requests) == 2 * failures

    asyncio.run(scenario())
    assert not [r for r in caplog.records if "lost" in r.getMessage()]


@pytest.mark.parametrize("step_s", [600, -600])
def test_a_live_worker_is_not_taken_for_dead_nor_a_dead_one_for_alive(
    settings: Settings, set_clock: SetClock, step_s: float
) -> None:
    dsn = pinned(by_index(settings.state_dsn), "triggerkit keeper")
    with run_state(settings) as state:
        transport = open_transport(settings, state.namespace)
        retention = Retention(timedelta(days=7))
        keeper = Keeper(dsn, transport, ExecutingProcesses(), threading.Event(), retention)
        [handle] = state.accept(new_run())
        state.connection.execute(
            "INSERT INTO triggerkit.workers (id, hostname, pid, parent_pid, slots)"
            " VALUES ('worker', 'host', 2, 1, 1)"
        )
        with state.claims("worker") as claims:
            claims.claim([handle.id])
        detector = FailureDetector(keeper.lease_s)
        keeper.tick(state.connection, detector)
        set_clock(step_s)
        keeper.tick(state.connection, detector)
        assert state.run(handle.id)["status"] == "executing"
        detector = FailureDetector(lease_s=0.0)
        keeper.tick(state.connection, detector)
        set_clock(-step_s)
        keeper.tick(state.connection, detector)
        assert state.run(handle.id)["status"] == "queued"
