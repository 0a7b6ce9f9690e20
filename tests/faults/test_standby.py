"""A standby takes over from a stream that dies or loses its lock: nothing lost, order kept."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from typing import Self

import psycopg
import pytest

from tests.acceptance.project import ROOT, clean_environment, eventually
from tests.faults.rig.checker import check, explain
from tests.faults.rig.history import Bounds
from tests.faults.rig.processes import kill
from tests.faults.rig.proxy import Proxy
from tests.faults.rig.scenario import IN_FLIGHT, OBSERVED, Scenario
from triggerkit.settings import Settings
from triggerkit.supervisor.streaming.leadership import leadership

#: Seconds a standby may take until it delivers.
TAKE_OVER_S = 10.0


class StreamProcess:
    """One `triggerkit stream` in a process of its own, not started again."""

    def __init__(self, scenario: Scenario, name: str) -> None:
        self._log = scenario.folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "triggerkit", "stream"],
                cwd=scenario.folder,
                env={
                    **clean_environment(),
                    **scenario.environment,
                    "PYTHONPATH": str(ROOT),
                    "PYTHONUNBUFFERED": "1",
                },
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def until_said(self, text: str, timeout_s: float = 30) -> None:
        try:
            eventually(lambda: text in self.said(), timeout_s, text)
        except AssertionError:
            pytest.fail(f"it did not say {text!r}, but:\n{self.said()}")

    def said(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        kill(self._process.pid)
        self._process.wait()


def delivered_after(scenario: Scenario, at: float) -> bool:
    return any(d.started_at > at for d in scenario.receiver.deliveries(OBSERVED))


def judge(scenario: Scenario, takeovers: int) -> None:
    drained_s = scenario.drain(30)
    bounds = Bounds(repeats=takeovers * IN_FLIGHT, effect_repeats=0, drain_s=30)
    violations = check(scenario.history(OBSERVED, drained_s), bounds)
    assert not violations, explain(violations)


def test_a_standby_takes_over_from_a_killed_stream(scenario: Scenario) -> None:
    scenario.prepare(rows_before=500, paths=[OBSERVED])
    with (
        StreamProcess(scenario, "first") as first,
        scenario.changing(random.randrange(2**32), per_second=200) as workload,
    ):
        first.until_said("ready")
        with StreamProcess(scenario, "second") as second:
            second.until_said("standing by")
            workload.until(300, 30)
            killed_at = time.monotonic()
            first.kill()
            eventually(
                lambda: delivered_after(scenario, killed_at + 0.5), TAKE_OVER_S, "a delivery"
            )
            print(f"took over after {time.monotonic() - killed_at:.1f} s")
            workload.until(900, 30)
            workload.stop()
            judge(scenario, takeovers=1)


def test_a_stream_whose_lock_is_taken_away_stands_by(scenario: Scenario) -> None:
    scenario.prepare(rows_before=100, paths=[OBSERVED])
    with (
        StreamProcess(scenario, "first") as first,
        scenario.changing(random.randrange(2**32), per_second=200) as workload,
    ):
        first.until_said("ready")
        with StreamProcess(scenario, "second") as second:
            second.until_said("standing by")
            workload.until(200, 30)
            with scenario.connect() as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
                    "AND granted AND database = (SELECT oid FROM pg_database WHERE datname = "
                    "current_database()) AND pid IN (SELECT pid FROM pg_stat_activity "
                    "WHERE application_name = 'triggerkit leader')"
                )
            eventually(lambda: "connection lost" in first.said(), TAKE_OVER_S, "the leader notices")
            workload.until(600, 30)
            workload.stop()
            judge(scenario, takeovers=1)


async def _until_canceled(settings: Settings, led: asyncio.Event) -> None:
    async with leadership(settings, 1):
        led.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("loss", ["terminated", "half open"])
def test_the_lead_ends_with_its_lock(settings: Settings, loss: str) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(Proxy.start(settings.state_dsn))
            through = Settings.parse({"DATABASE_URL": proxy.dsn(settings.state_dsn)})
            led = asyncio.Event()
            leading = asyncio.create_task(_until_canceled(through, led))
            await led.wait()
            if loss == "half open":
                proxy.cut()
            else:
                with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
                        "application_name = 'triggerkit leader' AND datname = current_database()"
                    )
            async with asyncio.timeout(8 if loss == "half open" else 2):
                with pytest.raises(ExceptionGroup) as raised:
                    await leading
            assert raised.group_contains(psycopg.OperationalError)

    asyncio.run(scenario())


def test_a_standby_holds_nothing_back_from_vacuum(settings: Settings) -> None:
    async def scenario() -> None:
        led, other = asyncio.Event(), asyncio.Event()
        leading = asyncio.create_task(_until_canceled(settings, led))
        await led.wait()
        standby = asyncio.create_task(_until_canceled(settings, other))
        with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
            query = (
                "SELECT count(*), count(backend_xmin) FROM pg_stat_activity WHERE "
                "application_name = 'triggerkit leader' AND datname = current_database()"
            )
            await asyncio.to_thread(
                eventually,
                lambda: connection.execute(query).fetchone() == (2, 0),
                10,
                "a standby that is idle in the server",
            )
        leading.cancel()
        await asyncio.wait_for(other.wait(), 5)
        standby.cancel()
        await asyncio.gather(leading, standby, return_exceptions=True)

    asyncio.run(scenario())
