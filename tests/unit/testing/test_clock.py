"""Time in tests goes by their clock: delays, schedules, and what waits."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from tests.unit.testing import NOON
from triggerkit import Tick, task
from triggerkit.errors import ConfigurationError
from triggerkit.testing import (
    Clock,
    MemoryRuns,
)


def test_delays_and_times_go_by_the_clock(runs: MemoryRuns) -> None:
    seen: list[datetime] = []

    @task
    def note() -> None:
        seen.append(runs.clock.now())

    note.trigger(delay=NOON + timedelta(hours=2))
    note.trigger(delay=timedelta(hours=1))
    assert runs.drain(until=timedelta(minutes=59)) == []
    assert runs.clock.now() == NOON + timedelta(minutes=59)
    assert len(runs.drain(until=NOON + timedelta(hours=3))) == 2
    assert seen == [NOON + timedelta(hours=1), NOON + timedelta(hours=2)]
    assert runs.clock.now() == NOON + timedelta(hours=3)


def test_a_clock_goes_on_only_and_its_times_have_zones(runs: MemoryRuns) -> None:
    with pytest.raises(ConfigurationError, match="cannot go back"):
        runs.clock.advance(-1)
    with pytest.raises(ConfigurationError, match="cannot go back"):
        runs.drain(until=NOON - timedelta(1))
    with pytest.raises(ConfigurationError, match="time zone"):
        runs.drain(until=datetime(2030, 1, 2))
    with pytest.raises(ConfigurationError, match="time zone"):
        Clock(datetime(2030, 1, 1))


def test_ticks_make_one_run_each_and_know_the_one_before(runs: MemoryRuns) -> None:
    ticks: list[tuple[datetime, datetime | None]] = []

    @task(schedule="0 * * * *")
    def hourly(tick: Tick) -> None:
        ticks.append((tick.at, tick.last_at))

    runs.start_schedule(hourly)
    assert runs.drain() == []
    assert runs.finish() == []
    runs.clock.advance(timedelta(hours=1))
    runs.drain()
    runs.drain(until=timedelta(hours=1))
    assert runs.drain() == []
    one, two = NOON + timedelta(hours=1), NOON + timedelta(hours=2)
    assert ticks == [(one, None), (two, one)]

    @task
    def unplanned() -> None: ...

    with pytest.raises(ConfigurationError, match="unplanned has no schedule"):
        runs.start_schedule(unplanned)


def test_a_wait_ends_when_its_time_is_over_by_the_clock(runs: MemoryRuns) -> None:
    @task
    def work() -> int:
        return 1

    with pytest.raises(TimeoutError):
        work.trigger_and_wait(delay=60, timeout=30)
    assert runs.clock.now() == NOON + timedelta(seconds=30)
    runs.finish()
    assert runs.triggered(work).output == 1
