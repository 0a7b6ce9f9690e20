"""Runs that are stopped: after their longest time, or canceled, whatever their code does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from tests.integration.run_state import RunState
from tests.integration.worker_thread import working
from triggerkit import Retry, current_run, task
from triggerkit.runs.keeper.recover import return_runs
from triggerkit.state.channels import KEEPER


def cancel(state: RunState, run_id: str) -> None:
    """Cancel an executing run, as the command does."""
    state.connection.execute(
        "UPDATE triggerkit.runs SET cancel_requested_at = now() WHERE id = %s", [run_id]
    )
    state.connection.execute(f"SELECT pg_notify('{KEEPER}', '')")


def spin(seconds: float = 30.0) -> None:
    """Python code that does not end for a while."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)


def test_a_sync_and_an_async_attempt_are_stopped_after_max_duration(triggers: RunState) -> None:
    cleaned: list[str] = []

    @task(max_duration=0.5)
    def busy() -> None:
        try:
            spin()
        finally:
            cleaned.append("sync")

    @task(max_duration=0.5)
    async def abusy() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            cleaned.append("async")

    @task(max_duration=30)
    def quick() -> str:
        return "done"

    handles = [busy.trigger(), abusy.trigger()]
    with working(triggers, busy, abusy, quick):
        rows = triggers.wait_for_status("timed_out", *(handle.id for handle in handles))
        assert quick.trigger_and_wait() == "done"
    assert sorted(cleaned) == ["async", "sync"]
    for row in rows:
        assert row["error"]["type"] == "TimedOut"
        assert row["error"]["message"] == "it took longer than its max_duration of 0.5 s"
        assert (row["attempt"], row["finished_at"] is not None) == (1, True)
    assert [status for _, status, _ in triggers.attempts(handles[0].id)] == ["timed_out"]


def test_an_attempt_that_does_not_end_is_given_up_and_its_process_replaced(
    triggers: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.worker.watchdog.GRACE_S", 0.5)
    go_on = threading.Event()

    @task(max_duration=0.5)
    def blocked() -> None:
        go_on.wait()

    @task(max_duration=0.5)
    async def stubborn() -> None:
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    for stuck in (blocked, stubborn):
        go_on.clear()
        handle = stuck.trigger()
        with working(triggers, stuck) as worker:
            triggers.wait_for_status("timed_out", handle.id)
            assert worker
        go_on.set()
    assert triggers.rows("SELECT id FROM triggerkit.workers") == []


def test_an_executing_run_is_canceled_at_once(triggers: RunState) -> None:
    entered: list[str] = []

    @task(retry=Retry(max_attempts=5))
    def busy() -> None:
        entered.append("sync")
        spin()

    @task
    async def abusy() -> None:
        entered.append("async")
        await asyncio.sleep(30)

    handles = [busy.trigger(), abusy.trigger()]
    with working(triggers, busy, abusy):
        triggers.wait_for(lambda: len(entered) == 2)
        asked = time.monotonic()
        for handle in handles:
            cancel(triggers, handle.id)
        rows = triggers.wait_for_status("canceled", *(handle.id for handle in handles))
        assert time.monotonic() - asked < 4
    assert [row["error"]["type"] for row in rows] == ["Canceled"] * 2
    assert all(row["finished_at"] for row in rows)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_later_attempt_in_the_process_of_the_earlier_one_stops_it_and_completes(
    triggers: RunState, *, is_async: bool
) -> None:
    begun: list[int] = []
    ended: list[int] = []
    go_on = threading.Event()

    def steps() -> Iterator[None]:
        attempt = current_run().attempt
        begun.append(attempt)
        try:
            while attempt == 1 or not go_on.is_set():
                yield
        finally:
            ended.append(attempt)

    @task(retry=3)
    def overtaken() -> str:
        for _ in steps():
            time.sleep(0.01)
        return f"attempt {current_run().attempt}"

    @task(retry=3)
    async def aovertaken() -> str:
        for _ in steps():
            await asyncio.sleep(0.01)
        return f"attempt {current_run().attempt}"

    @task
    def next_one() -> None: ...

    @task
    async def anext_one() -> None: ...

    first, following = (aovertaken, anext_one) if is_async else (overtaken, next_one)
    handle = first.trigger()
    with working(triggers, first, following, threads=2, async_runs=2):
        triggers.wait_for(lambda: begun == [1])
        return_runs(triggers.connection, [triggers.run(handle.id)["worker"]])
        triggers.wait_for(lambda: begun == [1, 2])
        triggers.wait_for(lambda: ended == [1])
        others = [following.trigger() for _ in range(3)]
        triggers.wait_for_status("completed", *(other.id for other in others))
        go_on.set()
        [row] = triggers.wait_for_status("completed", handle.id)
    assert (row["attempt"], row["output"]) == (2, '"attempt 2"')


def test_a_run_that_waits_for_another_can_be_canceled_without_harm_to_its_process(
    triggers: RunState, caplog: pytest.LogCaptureFixture
) -> None:
    @task
    def never() -> None: ...

    @task
    def parent() -> Any:
        return never.trigger_and_wait()

    with working(triggers, parent):
        handle = parent.trigger()
        triggers.wait_for(lambda: len(triggers.statuses()) == 2)
        cancel(triggers, handle.id)
        triggers.wait_for_status("canceled", handle.id)
    assert "its process is replaced" not in caplog.text


def test_a_canceled_run_that_fails_meanwhile_is_not_tried_again(triggers: RunState) -> None:
    entered, go_on = threading.Event(), threading.Event()

    @task(retry=Retry(max_attempts=5, min_delay_s=0))
    def failing() -> None:
        entered.set()
        go_on.wait(10)
        raise ValueError("no luck")

    handle = failing.trigger()
    with working(triggers, failing):
        assert entered.wait(10)
        triggers.connection.execute("UPDATE triggerkit.runs SET cancel_requested_at = now()")
        go_on.set()
        [row] = triggers.wait_for_status("canceled", handle.id)
    assert row["attempt"] == 1


def test_a_task_that_finishes_in_spite_of_its_stop_is_completed(triggers: RunState) -> None:
    @task(max_duration=0.3)
    def finishing() -> str:
        try:
            spin()
        except BaseException:
            return "finished all the same"
        return "too late"

    handle = finishing.trigger()
    with working(triggers, finishing):
        triggers.wait_for_status("completed", handle.id)


@pytest.mark.parametrize("scope", ["run", None])
def test_a_run_that_is_handed_back_finds_its_child_by_a_key_of_its_own(
    triggers: RunState, scope: Literal["run"] | None
) -> None:
    go_on = threading.Event()

    @task
    def child() -> str:
        assert go_on.wait(30)
        return "done"

    @task
    async def parent() -> str:
        if scope is None:
            return await child.atrigger_and_wait()
        return await child.atrigger_and_wait(idempotency_key="k", idempotency_scope=scope)

    handle = parent.trigger()
    with working(triggers, parent):
        triggers.wait_for(lambda: len(triggers.statuses()) == 2)
    assert triggers.run(handle.id)["status"] == "queued"
    go_on.set()
    with working(triggers, parent, child):
        [row] = triggers.wait_for_status("completed", handle.id)
    assert (row["attempt"], row["output"]) == (1, '"done"')
    assert len(triggers.statuses()) == (2 if scope else 3)
