"""What a task calls is busy or away: its runs wait, one is tried, and nothing is used up."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson
import pytest

from tests.integration.run_state import RunState
from tests.integration.worker_thread import Row, message, working
from triggerkit import AbortRun, BatchResult, Change, ItemFailure, Queue, Retry, Task, task
from triggerkit.runs.admin.browse import list_runs
from triggerkit.runs.run import NewRun
from triggerkit.state.connect import connect

BREAKER = "SELECT closed_at IS NULL FROM triggerkit.breakers WHERE task = %s"
ITEM_RUNS = "SELECT id FROM triggerkit.runs WHERE item_key IS NOT NULL"


class BusyError(Exception):
    """The API asks to come again later."""


class Api:
    """What the tests' tasks call: busy while `is_busy`, and it notes when it is asked."""

    def __init__(self) -> None:
        self.is_busy = True
        self.asked_at: list[float] = []
        self.done: list[int] = []

    def ask(self, what: int) -> None:
        self.asked_at.append(time.monotonic())
        if self.is_busy:
            raise BusyError("rate limit reached")
        self.done.append(what)


@pytest.fixture
def api() -> Api:
    return Api()


def runs_of(made: Task[Any, Any, Any], count: int, **given: Any) -> list[NewRun]:
    return [replace(made.new_run(number), **given) for number in range(count)]


def reasons(state: RunState) -> set[str | None]:
    async def looked() -> set[str | None]:
        async with await connect(state.settings.state_dsn, "test") as connection:
            found, _ = await list_runs(connection)
        return {run["reason"] for run in found}

    return asyncio.run(looked())


def asking(api: Api, **given: Any) -> Task[Any, Any, Any]:
    @task(retry=Retry(max_attempts=2, wait_for=(BusyError,)), **given)
    async def ask(number: int) -> int:
        api.ask(number)
        return number

    return ask


def test_while_the_api_is_busy_one_run_a_second_is_tried_and_then_all_of_them_go_on(
    state: RunState, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    ask = asking(api)
    runs = runs_of(ask, 40)
    state.accept(*runs)
    with caplog.at_level(logging.WARNING, "triggerkit"), working(state, ask, async_runs=10):
        state.wait_for(lambda: len(api.asked_at) >= 10 and state.rows(BREAKER, "ask") == [True])
        state.wait_for(lambda: "executing" not in state.statuses())
        busy_from = len(api.asked_at)
        state.wait_for(lambda: len(api.asked_at) >= busy_from + 4)
        tried = api.asked_at[busy_from:]
        assert min(b - a for a, b in pairwise(tried)) > 0.9
        assert "failed" not in state.statuses()
        api.is_busy = False
        state.wait_for_status("completed", *(run.id for run in runs))
    assert sorted(api.done) == list(range(40))
    assert state.rows(BREAKER, "ask") == [False]
    told = [line for line in caplog.messages if "BusyError: rate limit reached" in line]
    assert len(told) == 1, caplog.messages
    assert told[0].startswith("ask waits: ")
    assert {run["attempt"] - run["waits"] for run in map(state.run, (r.id for r in runs))} == {1}


def test_two_workers_obey_the_same_breaker(state: RunState, api: Api) -> None:
    ask = asking(api)
    runs = runs_of(ask, 20)
    state.accept(*runs)
    with working(state, ask, async_runs=2), working(state, ask, async_runs=2):
        state.wait_for(lambda: state.rows(BREAKER, "ask") == [True])
        began = len(api.asked_at)
        state.wait_for(lambda: len(api.asked_at) >= began + 5)
        took_s = api.asked_at[-1] - api.asked_at[began]
        assert took_s > 3
        api.is_busy = False
        state.wait_for_status("completed", *(run.id for run in runs))


def test_the_waiting_runs_say_what_they_wait_for(state: RunState, api: Api) -> None:
    ask = asking(api)
    state.accept(*runs_of(ask, 3))
    with working(state, ask, async_runs=1):
        state.wait_for(lambda: state.rows(BREAKER, "ask") == [True])

        def said() -> bool:
            told = {reason for reason in reasons(state) if reason is not None}
            return bool(told) and all(
                "its task waits since" in r and "BusyError: rate limit reached" in r for r in told
            )

        state.wait_for(said)
        api.is_busy = False
        state.wait_for(lambda: set(state.statuses()) == {"completed"})


def test_a_batch_that_waits_is_not_halved_though_no_attempt_is_left(
    state: RunState, api: Api
) -> None:
    seen: list[int] = []

    @task(retry=Retry(max_attempts=1, wait_for=(BusyError,)))
    def work(batch: list[Change[Row]]) -> int:
        seen.append(len(batch))
        api.ask(len(batch))
        return len(batch)

    run = work.new_run({"data": [message(number) for number in range(8)]})
    state.accept(run)
    with working(state, work):
        state.wait_for(lambda: len(seen) >= 3)
        api.is_busy = False
        [row] = state.wait_for_status("completed", run.id)
    assert set(seen) == {8}
    assert row["attempt"] == row["waits"] + 1
    assert state.rows(ITEM_RUNS) == []


def test_a_batch_being_halved_waits_as_a_whole_and_only_the_bad_item_fails(
    state: RunState, api: Api
) -> None:
    calls: list[int] = []

    @task(retry=Retry(max_attempts=1, wait_for=(BusyError,)))
    def work(batch: list[Change[Row]]) -> int:
        calls.append(len(batch))
        if len(calls) == 2:
            raise BusyError
        if any(change.record.text == "bad" for change in batch):
            raise ValueError("bad text")
        return len(batch)

    run = work.new_run({"data": [message(n, "bad" if n == 3 else "") for n in range(4)]})
    state.accept(run)
    with working(state, work):
        state.wait_for_status("completed", run.id)
        [item] = state.rows(ITEM_RUNS)
        state.wait_for_status("failed", item)
    assert calls == [4, 2, 4, 2, 2, 1, 1]


def test_an_exception_within_a_task_group_is_waited_for(state: RunState, api: Api) -> None:
    @task(retry=Retry(max_attempts=1, wait_for=(BusyError,)))
    async def grouped() -> None:
        async def ask() -> None:
            api.ask(1)

        async with asyncio.TaskGroup() as group:
            group.create_task(ask())

    run = grouped.new_run(None)
    state.accept(run)
    with working(state, grouped):
        state.wait_for(lambda: state.rows(BREAKER, "grouped") == [True])
        api.is_busy = False
        state.wait_for_status("completed", run.id)


def test_an_item_alone_that_is_named_as_failed_by_it_waits_too(state: RunState, api: Api) -> None:
    @task(retry=Retry(max_attempts=1, wait_for=(BusyError,)))
    def work(batch: list[Change[Row]]) -> BatchResult:
        try:
            api.ask(1)
        except BusyError as error:
            return BatchResult(failed=(ItemFailure(batch[0], error),))
        return BatchResult(output="done")

    run = replace(work.new_run({"data": [message(1)]}), item_key="a row")
    state.accept(run)
    with working(state, work):
        state.wait_for(lambda: state.rows(BREAKER, "work") == [True])
        api.is_busy = False
        [row] = state.wait_for_status("completed", run.id)
    assert orjson.loads(row["output"]) == "done"


def test_a_wait_that_the_answer_asks_for_is_kept_and_other_tasks_go_on(
    state: RunState, api: Api
) -> None:
    class Answer:
        headers = {"retry-after": "600"}

    class LimitError(BusyError):
        response = Answer()

    @task(retry=Retry(max_attempts=1, wait_for=(BusyError,)))
    async def limited() -> None:
        api.asked_at.append(time.monotonic())
        raise LimitError("come later")

    @task
    async def other() -> None:
        pass

    state.accept(*(limited.new_run(None) for _ in range(30)))
    with working(state, limited, other, async_runs=1):
        state.wait_for(lambda: state.rows(BREAKER, "limited") == [True])
        after = other.new_run(None)
        state.accept(after)
        state.wait_for_status("completed", after.id)
    # Some begin before the first one's outcome is written.
    assert len(api.asked_at) < 10
    asked = "SELECT probe_at - opened_at > interval '599 seconds' FROM triggerkit.breakers"
    assert state.rows(asked) == [True]


def test_a_probe_whose_worker_dies_is_followed_by_another(state: RunState, api: Api) -> None:
    ask = asking(api)
    state.accept(*(runs := runs_of(ask, 3)))
    with working(state, ask, async_runs=1):
        state.wait_for(lambda: state.rows(BREAKER, "ask") == [True])
    # The one that was named is with a worker that is not there.
    state.connection.execute(
        "UPDATE triggerkit.breakers SET probe = (SELECT min(id) FROM triggerkit.runs)"
    )
    state.connection.execute(
        "UPDATE triggerkit.runs SET status = 'executing', worker = 'gone', attempt = attempt + 1, "
        "started_at = now() WHERE id = (SELECT min(id) FROM triggerkit.runs)"
    )
    api.is_busy = False
    with working(state, ask, async_runs=1):
        state.wait_for_status("completed", *(run.id for run in runs))


def test_what_waits_leaves_the_room_of_its_queue_to_other_tasks(state: RunState, api: Api) -> None:
    shared = Queue("shared", concurrency=1)
    ask = asking(api, queue=shared)

    @task(queue=shared)
    async def other() -> None:
        pass

    state.connection.execute(
        "INSERT INTO triggerkit.queues (name, concurrency) VALUES ('shared', 1)"
    )
    state.accept(*(runs := runs_of(ask, 5)))
    with working(state, ask, other):
        state.wait_for(lambda: state.rows(BREAKER, "ask") == [True])
        state.accept(*(others := [other.new_run(None) for _ in range(3)]))
        state.wait_for_status("completed", *(run.id for run in others))
        api.is_busy = False
        state.wait_for_status("completed", *(run.id for run in runs))


def test_an_error_of_the_runs_own_uses_up_its_attempts_and_lets_the_others_go_on(
    state: RunState, api: Api
) -> None:
    @task(retry=Retry(max_attempts=1, wait_for=(BusyError,)))
    async def ask(number: int) -> None:
        api.ask(number)
        raise AbortRun("its own fault")

    state.accept(*(runs := runs_of(ask, 4)))
    with working(state, ask):
        state.wait_for(lambda: state.rows(BREAKER, "ask") == [True])
        api.is_busy = False
        state.wait_for_status("failed", *(run.id for run in runs))
    assert state.rows(BREAKER, "ask") == [False]
