"""Hooks and errors: what a task has called around its attempts, and who decides on a retry."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.integration.run_state import RunState
from tests.integration.worker.test_stopping import cancel, spin
from tests.integration.worker_thread import working
from triggerkit import AbortRun, Retry, RetryAfter, RunContext, task

SOON = Retry(max_attempts=2, min_delay_s=0.05, jitter=False)


def test_hooks_are_called_around_the_attempts_of_sync_and_async_tasks(triggers: RunState) -> None:
    heard: list[Any] = []

    @task(retry=SOON)
    def flaky(given: dict[str, bool]) -> str:
        heard.append("task")
        if given["fails"]:
            raise ValueError("no luck")
        return "done"

    @flaky.on_start
    def started(run: RunContext) -> None:
        heard.append(("start", run.attempt))

    @flaky.on_success
    async def succeeded(run: RunContext, output: Any) -> None:
        heard.append(("success", run.task, output))

    @flaky.on_failure
    def failed(run: RunContext, error: BaseException) -> None:
        heard.append(("failure", run.attempt, str(error)))

    with working(triggers, flaky):
        triggers.wait_for_status("completed", flaky.trigger({"fails": False}).id)
        assert heard == [("start", 1), "task", ("success", "flaky", "done")]
        heard.clear()
        triggers.wait_for_status("failed", flaky.trigger({"fails": True}).id)
    starts = [("start", 1), "task", ("start", 2), "task"]
    assert heard == [*starts, ("failure", 2, "no luck")]


@pytest.mark.parametrize("error", [ValueError("in the hook"), SystemExit(1)], ids=repr)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_hook_that_throws_is_told_of_in_the_runs_log_and_ignored(
    triggers: RunState, error: BaseException, is_async: bool
) -> None:
    def act() -> str:
        return "done"

    async def aact() -> str:
        return "done"

    made: Any = task(name="act")(aact if is_async else act)

    def throws(*given: Any) -> None:
        raise error

    made.on_start(throws)
    made.on_success(throws)
    handle = made.trigger()
    with working(triggers, made):
        triggers.wait_for_status("completed", handle.id)
    lines = "SELECT level, name FROM triggerkit.spans WHERE kind = 'log' ORDER BY id"
    text = f"{type(error).__name__}: {error}"
    assert triggers.rows(lines) == [
        ("error", f"the start hook failed: {text}"),
        ("error", f"the success hook failed: {text}"),
    ]


def test_the_cancel_hook_is_called_when_an_attempt_is_canceled(triggers: RunState) -> None:
    heard: list[Any] = []

    @task
    def busy() -> None:
        heard.append("task")
        spin()

    @busy.on_cancel
    def canceled(run: RunContext) -> None:
        heard.append(("canceled", run.id))

    handle = busy.trigger()
    with working(triggers, busy):
        triggers.wait_for(lambda: heard)
        cancel(triggers, handle.id)
        triggers.wait_for_status("canceled", handle.id)
    assert heard == ["task", ("canceled", handle.id)]


def test_the_error_hook_decides_and_the_first_answer_counts(triggers: RunState) -> None:
    @task(retry=Retry(max_attempts=3, min_delay_s=0))
    def call(given: dict[str, str]) -> str:
        raise ValueError(given["why"])

    @call.on_error
    def decide(run: RunContext, error: BaseException) -> AbortRun | RetryAfter | None:
        if str(error) == "closed":
            return AbortRun("the account is closed")
        return RetryAfter(100) if str(error) == "busy" else None

    handles = [call.trigger({"why": why}) for why in ("closed", "busy", "bad luck")]
    with working(triggers, call):
        [closed] = triggers.wait_for_status("failed", handles[0].id)
        [busy] = triggers.wait_for_status("retrying", handles[1].id)
        [unlucky] = triggers.wait_for_status("failed", handles[2].id)
    assert [row["attempt"] for row in (closed, busy, unlucky)] == [1, 1, 3]
    assert closed["error"]["message"] == "closed"


def test_retry_after_uses_up_no_attempt(triggers: RunState) -> None:
    calls: list[int] = []

    @task(retry=Retry(max_attempts=2, min_delay_s=0))
    def limited() -> str:
        calls.append(len(calls))
        if len(calls) <= 4:
            raise RetryAfter(0)
        if len(calls) == 5:
            raise ValueError("a real failure")
        return "done"

    handle = limited.trigger()
    with working(triggers, limited):
        [row] = triggers.wait_for_status("completed", handle.id)
    assert (row["attempt"], row["waits"], len(calls)) == (6, 4, 6)


def test_what_a_group_of_a_task_group_decides_counts(triggers: RunState) -> None:
    async def fail(error: Exception) -> None:
        raise error

    @task(retry=Retry(max_attempts=3, min_delay_s=0))
    async def grouped(given: dict[str, str]) -> None:
        decision = (
            AbortRun("closed") if given["what"] == "abort" else RetryAfter(timedelta(hours=1))
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(decision))

    handles = [grouped.trigger({"what": what}) for what in ("abort", "wait")]
    with working(triggers, grouped):
        [aborted] = triggers.wait_for_status("failed", handles[0].id)
        [waiting] = triggers.wait_for_status("retrying", handles[1].id)
    assert (aborted["attempt"], waiting["attempt"], waiting["waits"]) == (1, 1, 1)
    hours = "SELECT round(extract(epoch FROM scheduled_at - now()) / 3600) FROM triggerkit.runs"
    assert triggers.rows(f"{hours} WHERE id = %s", handles[1].id) == [1]


def test_each_attempt_is_recorded_with_its_error_and_times(triggers: RunState) -> None:
    @task(retry=SOON)
    def doomed() -> None:
        raise ValueError("no luck")

    handle = doomed.trigger()
    with working(triggers, doomed):
        triggers.wait_for_status("failed", handle.id)
    attempts = triggers.rows(
        "SELECT attempt, status, error ->> 'type', error ->> 'message', "
        "finished_at >= started_at, worker IS NOT NULL FROM triggerkit.attempts ORDER BY attempt"
    )
    assert attempts == [(n, "failed", "ValueError", "no luck", True, True) for n in (1, 2)]


def test_an_aborted_run_makes_no_further_attempt(triggers: RunState) -> None:
    @task(retry=5)
    async def hopeless() -> None:
        raise AbortRun("the account is closed")

    handle = hopeless.trigger()
    with working(triggers, hopeless):
        [row] = triggers.wait_for_status("failed", handle.id)
    assert (row["attempt"], row["error"]["type"]) == (1, "AbortRun")
