"""A worker on real runs: outcomes, errors, retries, draining, and what idling costs."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import orjson

from tests.integration.run_state import RunState
from tests.integration.worker_thread import Order, Row, executing, message, working
from triggerkit import AbortRun, Change, Retry, RetryAfter, task


class UnprintableError(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_sync_and_async_tasks_of_several_queues_complete_with_their_output(
    state: RunState,
) -> None:
    @task(queue="first")
    def double(order: Order) -> dict[str, int]:
        return {"doubled": order.number * 2}

    @task(queue="second")
    async def shout(change: Change[Row]) -> str:
        await asyncio.sleep(0)
        return f"{change.action} {change.record.text.upper()}"

    doubled, shouted = double.new_run({"number": 21}), shout.new_run(message(1, "hey"))
    state.accept(doubled, shouted)
    with working(state, double, shout):
        rows = state.wait_for_status("completed", doubled.id, shouted.id)
    assert [orjson.loads(row["output"]) for row in rows] == [{"doubled": 42}, "insert HEY"]


def test_a_failing_run_is_tried_again_until_it_succeeds(state: RunState) -> None:
    started: list[float] = []

    @task(retry=Retry(max_attempts=3, min_delay_s=0.3, jitter=False))
    def third_time_lucky(order: Order) -> str:
        started.append(time.monotonic())
        if len(started) < 3:
            raise ValueError(f"attempt {len(started)}")
        return "done"

    run = third_time_lucky.new_run({"number": 1})
    with working(state, third_time_lucky):
        state.accept(run)
        [row] = state.wait_for_status("completed", run.id)
    assert (row["attempt"], row["error"]) == (3, None)
    assert started[1] - started[0] > 0.3
    assert started[2] - started[1] > 0.6
    attempts = "SELECT attempt, status, error ->> 'message' FROM triggerkit.attempts ORDER BY 1"
    assert state.rows(attempts) == [(1, "failed", "attempt 1"), (2, "failed", "attempt 2")]


def test_a_run_fails_when_its_attempts_are_used_up_with_the_users_own_traceback(
    state: RunState,
) -> None:
    @task(retry=1)
    async def doomed(order: Order) -> None:
        try:
            await fetch(order)
        except KeyError as error:
            raise ValueError("cannot fetch") from error

    run = doomed.new_run({"number": 7})
    state.accept(run)
    with working(state, doomed):
        [row] = state.wait_for_status("failed", run.id)
    error = row["error"]
    assert (error["type"], error["message"]) == ("ValueError", "cannot fetch")
    shown = error["traceback"]
    assert shown.index("KeyError") < shown.index("direct cause") < shown.index("ValueError")
    assert [line.split('"')[1] for line in shown.splitlines() if "File " in line] == [__file__] * 3


async def fetch(order: Order) -> None:
    raise KeyError(order.number)


def test_abort_run_fails_at_once_and_retry_after_chooses_the_wait(state: RunState) -> None:
    @task(retry=5)
    def hopeless(order: Order) -> None:
        raise AbortRun("the account is closed")

    @task(retry=5)
    def later(order: Order) -> None:
        raise RetryAfter(order.number)

    aborted = hopeless.new_run({"number": 1})
    waiting = [later.new_run({"number": n}) for n in (100, 10**12)]
    state.accept(aborted, *waiting)
    with working(state, hopeless, later):
        [row] = state.wait_for_status("failed", aborted.id)
        state.wait_for_status("retrying", *(run.id for run in waiting))
    assert (row["attempt"], row["error"]["message"]) == (1, "the account is closed")
    waits = (
        "SELECT extract(epoch FROM scheduled_at - now())::float FROM triggerkit.runs WHERE id=%s"
    )
    assert 90 < state.rows(waits, waiting[0].id)[0] <= 100
    assert state.rows(waits, waiting[1].id)[0] > 300 * 86400


def test_whatever_a_task_raises_or_returns_ends_its_run_and_no_other(state: RunState) -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    raised = {
        "nul": ValueError("a\x00b"),
        "surrogate": ValueError("a\ud800b"),
        "unprintable": UnprintableError(),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "canceled": asyncio.CancelledError(),
    }
    returned = {
        "nul": "a\x00b",
        "bytes": b"\xff",
        "huge": 2**70,
        "cyclic": cyclic,
        "text": "\ud800",
    }

    def act(name: str) -> Any:
        kind, _, which = name.partition(" ")
        if kind == "raise":
            raise raised[which]
        return returned[which]

    @task(name="sync_acts", retry=1)
    def sync_acts(order: dict[str, str]) -> Any:
        return act(order["act"])

    @task(name="async_acts", retry=1)
    async def async_acts(order: dict[str, str]) -> Any:
        return act(order["act"])

    tasks = (sync_acts, async_acts)
    failing = [t.new_run({"act": f"raise {name}"}) for t in tasks for name in raised]
    fine = [t.new_run({"act": f"return {name}"}) for t in tasks for name in returned]
    state.accept(*failing, *fine)
    with working(state, *tasks):
        errors = [row["error"] for row in state.wait_for_status("failed", *(r.id for r in failing))]
        outputs = state.wait_for_status("completed", *(run.id for run in fine))
    assert [error["type"] for error in errors[: len(raised)]] == [
        type(error).__name__ for error in raised.values()
    ]
    assert errors[0]["message"] == "a\\x00b"
    assert errors[1]["message"] == "a\\ud800b"
    assert outputs[0]["output"] == '"a\\u0000b"'


def test_a_payload_that_no_longer_fits_fails_without_retry(state: RunState) -> None:
    @task(name="changed", retry=5)
    def before(order: dict[str, Any]) -> None: ...

    run = before.new_run({"amount": "much"})

    @task(name="changed_2")
    def after(order: Order) -> None: ...

    after.name = "changed"
    state.accept(run)
    with working(state, after):
        [row] = state.wait_for_status("failed", run.id)
    assert (row["attempt"], row["error"]["type"]) == (1, "InvalidPayload")


def test_stopping_waits_for_what_executes_and_takes_nothing_new(state: RunState) -> None:
    entered, go_on = threading.Event(), threading.Event()

    @task
    def slow(order: Order) -> str:
        entered.set()
        assert go_on.wait(10)
        return "done"

    runs = [slow.new_run({"number": n}) for n in range(3)]
    state.accept(*runs)
    left = threading.Event()

    def work() -> None:
        with working(state, slow, threads=1):
            assert entered.wait(10)
        left.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(10)
    assert not left.wait(0.3)
    go_on.set()
    thread.join()
    assert state.statuses() == ["completed", "queued", "queued"]
    assert state.rows("SELECT id FROM triggerkit.workers") == []
    assert state.pushed("slow") == [run.id for run in runs[1:]]


def test_an_idle_worker_asks_redis_once_a_second_and_postgres_never(state: RunState) -> None:
    @task
    def idle(order: Order) -> None: ...

    def activity() -> list[Any]:
        return state.rows(
            "SELECT pid, state_change FROM pg_stat_activity"
            " WHERE application_name = 'triggerkit worker' ORDER BY pid"
        )

    def commands() -> int:
        return int(state.redis.info("stats")["total_commands_processed"])

    run = idle.new_run({"number": 1})
    with executing(state.settings, state.namespace, idle):
        state.accept(run)
        state.wait_for_status("completed", run.id)
        before, commands_before, seconds = activity(), commands(), 3
        time.sleep(seconds)
        assert commands() - commands_before - 1 <= seconds + 1
        assert activity() == before
        assert len(before) == 2


def test_a_run_starts_within_milliseconds_where_a_worker_waits(state: RunState) -> None:
    @task
    def prompt(order: Order) -> None: ...

    runs = [prompt.new_run({"number": n}) for n in range(5)]
    with executing(state.settings, state.namespace, prompt):
        for run in runs:
            state.accept(run)
            state.wait_for_status("completed", run.id)
    waits_ms = (
        "SELECT extract(epoch FROM started_at - created_at)::float * 1000 FROM triggerkit.runs"
    )
    print(state.rows(waits_ms))
    assert min(state.rows(waits_ms)) < 150


def test_a_worker_with_nothing_to_do_stops_at_once(state: RunState) -> None:
    @task
    def idle(order: Order) -> None: ...

    @task
    async def idle_too(order: Order) -> None: ...

    with executing(state.settings, state.namespace, idle, idle_too):
        first = idle.new_run({"number": 1})
        state.accept(first)
        state.wait_for_status("completed", first.id)
        started = time.monotonic()
    assert time.monotonic() - started < 2
