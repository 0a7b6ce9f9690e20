"""Runs that were queued when their task took another shape: one change, or a list of changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from tests.integration.run_state import RunState
from tests.integration.worker_thread import Row, message, working
from triggerkit import BatchResult, Change, ItemFailure, Retry, Task, task
from triggerkit.runs.run import NewRun


def single(of: Task[Any, Any, Any], row_id: int, text: str) -> NewRun:
    """A run that was queued when `of` took one change."""
    run = of.new_run({"data": [message(1)]})
    return replace(run, payload=orjson.dumps(message(row_id, text)), items=None)


def batch(of: Task[Any, Any, Any], *rows: int) -> NewRun:
    """A run that was queued when `of` took a list of changes."""
    payload = orjson.dumps({"data": [message(row) for row in rows]})
    return replace(of.new_run(message(1)), payload=payload, items=len(rows))


def test_a_run_of_one_change_is_a_list_of_one_for_a_task_that_takes_lists_now(
    state: RunState,
) -> None:
    calls: list[list[int]] = []

    @task(retry=Retry(max_attempts=2, min_delay_s=0.01, jitter=False))
    def index(batch: list[Change[Row]]) -> BatchResult:
        calls.append([change.record.id for change in batch])
        failed = [ItemFailure(c, ValueError("not yet")) for c in batch if len(calls) == 1]
        return BatchResult(len(batch), failed)

    run = single(index, 7, "a")
    state.accept(run)
    with working(state, index):
        state.wait_for_status("completed", run.id)
        items = state.rows("SELECT id FROM triggerkit.runs WHERE item_key IS NOT NULL")
        state.wait_for_status("completed", *items)
    assert calls == [[7], [7]]


def test_a_list_of_one_is_a_change_for_a_task_that_takes_one_now(state: RunState) -> None:
    @task(retry=1)
    def index(change: Change[Row]) -> int:
        return change.record.id

    run = batch(index, 7)
    state.accept(run)
    with working(state, index):
        [row] = state.wait_for_status("completed", run.id)
    assert row["output"] == "7"


def test_a_list_of_several_fails_at_once_where_the_task_takes_one_now(state: RunState) -> None:
    @task(retry=5)
    def index(change: Change[Row]) -> None: ...

    @task(retry=5)
    def nothing() -> None: ...

    runs = batch(index, 7, 8), replace(batch(index, 7, 8), task=nothing.name)
    state.accept(*runs)
    with working(state, index, nothing):
        rows = state.wait_for_status("failed", *(run.id for run in runs))
    for row in rows:
        assert (row["attempt"], row["error"]["type"]) == (1, "InvalidPayload")
        assert "the run has a list of changes (2)" in row["error"]["message"]
