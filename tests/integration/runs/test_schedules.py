"""Schedules: exactly one run for each tick, whoever keeps, and what becomes of missed ones."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.integration.run_state import RunState
from tests.integration.runs.test_declared_runs import apply
from tests.integration.worker_thread import working
from triggerkit import Change, Cron, Tick, task
from triggerkit.errors import ConfigurationError
from triggerkit.runs.schedules import DueSchedules
from triggerkit.tasks.declare import declared

NEXT = "SELECT next_at FROM triggerkit.schedules"
TICKS = "SELECT source ->> 'tick' FROM triggerkit.runs ORDER BY seq"


def due_since(state: RunState, minutes: int) -> datetime:
    """Have the schedules' next tick be so many whole minutes ago; that time."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    at = now - timedelta(minutes=minutes)
    state.connection.execute("UPDATE triggerkit.schedules SET next_at = %s", [at])
    return at


def test_a_due_tick_runs_its_task_with_the_tick(triggers: RunState) -> None:
    seen: list[Any] = []

    @task(schedule=Cron("* * * * *"))
    def report(tick: Tick) -> None:
        seen.append(tick)

    @task(schedule="* * * * *")
    async def clean() -> None:
        seen.append(None)

    apply(triggers, report, clean)
    at = due_since(triggers, 0)
    with working(triggers, report, clean):
        triggers.wait_for(lambda: triggers.statuses() == ["completed"] * 2)
    assert sorted(seen, key=str) == [None, Tick("report", at, None)]
    assert set(triggers.rows(NEXT)) == {at + timedelta(minutes=1)}
    last = "SELECT last_at, last_run FROM triggerkit.schedules WHERE name = 'report'"
    [(last_at, last_run)] = triggers.rows(last)
    assert (last_at, triggers.run(last_run)["task"]) == (at, "report")


def test_several_that_keep_at_once_make_one_run_for_each_tick(triggers: RunState) -> None:
    @task(schedule=Cron("* * * * *", catch_up=True))
    def report() -> None: ...

    apply(triggers, report)
    start = threading.Barrier(4)

    def keep() -> None:
        with psycopg.connect(triggers.settings.state_dsn, autocommit=True) as connection:
            start.wait(10)
            due = DueSchedules()
            for _ in range(5):
                due.make_due_runs(connection)

    due_since(triggers, 20)
    threads = [threading.Thread(target=keep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ticks = triggers.rows(TICKS)
    assert len(ticks) == len(set(ticks)) >= 21


def test_missed_ticks_are_skipped_unless_they_are_to_be_caught_up(
    triggers: RunState, caplog: pytest.LogCaptureFixture
) -> None:
    @task(schedule=Cron("*/10 * * * *"))
    def skips() -> None: ...

    @task(schedule=Cron("*/10 * * * *", catch_up=True))
    def catches_up() -> None: ...

    apply(triggers, skips, catches_up)
    missed = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    triggers.connection.execute("UPDATE triggerkit.schedules SET next_at = %s", [missed])
    DueSchedules().make_due_runs(triggers.connection)
    count = "SELECT count(*)::int FROM triggerkit.runs WHERE task = %s"
    assert triggers.rows(count, "skips")[0] <= 1
    assert triggers.rows(count, "catches_up")[0] >= 18
    ticks = f"{TICKS.partition('ORDER')[0]} WHERE task = 'catches_up' ORDER BY seq"
    expected = [(missed + timedelta(minutes=10 * n)).isoformat() for n in range(18)]
    assert triggers.rows(ticks)[:18] == expected
    assert "the schedule skips missed" in caplog.text
    assert all(at > datetime.now(UTC) for at in triggers.rows(NEXT))


def test_more_missed_ticks_than_one_look_makes_are_caught_up_by_the_next(
    triggers: RunState,
) -> None:
    @task(schedule=Cron("* * * * *", catch_up=True))
    def report() -> None: ...

    apply(triggers, report)
    due_since(triggers, 250)
    made = [len(DueSchedules().make_due_runs(triggers.connection)) for _ in range(4)]
    assert made[:2] == [100, 100]
    assert 51 <= made[2] <= 52
    assert len(set(triggers.rows(TICKS))) == sum(made)


def test_ttl_priority_and_attempts_of_the_task_hold_for_its_ticks(triggers: RunState) -> None:
    @task(schedule="* * * * *", ttl=90, priority=30, retry=7, queue="reports")
    def report() -> None: ...

    apply(triggers, report)
    due_since(triggers, 0)
    DueSchedules().make_due_runs(triggers.connection)
    assert triggers.rows(
        "SELECT DISTINCT round(extract(epoch FROM expires_at - created_at)), priority, "
        "max_attempts, queue FROM triggerkit.runs"
    ) == [(90, 30, 7, "reports")]

    del declared["report"]

    @task(name="report", schedule="* * * * *", ttl=10, queue="reports")
    def changed() -> None: ...

    apply(triggers, changed)
    assert triggers.rows("SELECT ttl_s, priority FROM triggerkit.schedules") == [(10.0, 0)]


def test_a_paused_schedule_makes_no_runs(triggers: RunState) -> None:
    @task(schedule="* * * * *")
    def report() -> None: ...

    apply(triggers, report)
    due_since(triggers, 0)
    triggers.connection.execute("UPDATE triggerkit.schedules SET paused_at = now()")
    assert DueSchedules().make_due_runs(triggers.connection) == []
    assert triggers.statuses() == []


def test_a_scheduled_task_that_takes_changes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the clock sends no changes"):

        @task(schedule="* * * * *")
        def report(change: Change[dict[str, Any]]) -> None: ...
