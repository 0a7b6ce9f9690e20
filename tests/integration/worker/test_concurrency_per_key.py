"""`concurrency_per_key` as a task has it, in threads and on the event loop of a real worker."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.integration.run_state import RunState
from tests.integration.worker_thread import working
from triggerkit import Change, Task, rows, task
from triggerkit.errors import ConfigurationError
from triggerkit.runs.door import through
from triggerkit.runs.portal import Portal

PER_KEY = 3


class Together:
    """Counts who is inside, and lets none out before as many are as may be."""

    def __init__(self) -> None:
        self.most = self.inside = 0
        self.started: list[int] = []
        self.full = threading.Event()
        self._lock = threading.Lock()

    def enter(self, number: int) -> None:
        with self._lock:
            self.started.append(number)
            self.inside += 1
            self.most = max(self.most, self.inside)
            if self.inside == PER_KEY:
                self.full.set()

    def leave(self) -> None:
        with self._lock:
            self.inside -= 1


def test_in_threads_as_many_execute_as_the_task_allows_in_order(state: RunState) -> None:
    together = Together()

    @task(concurrency_per_key=PER_KEY)
    def work(number: int) -> None:
        together.enter(number)
        assert together.full.wait(10)
        together.leave()

    _judge(state, work, together)


def test_on_the_event_loop_as_many_execute_as_the_task_allows_in_order(state: RunState) -> None:
    together = Together()

    @task(concurrency_per_key=PER_KEY)
    async def work(number: int) -> None:
        together.enter(number)
        assert await asyncio.to_thread(together.full.wait, 10)
        together.leave()

    _judge(state, work, together)


def _judge(state: RunState, work: Task[int, [], Any, Any], together: Together) -> None:
    portal = Portal(lambda: state.settings)
    with working(state, work, threads=8, async_runs=8), through(portal):
        try:
            runs = work.trigger_many(range(30), concurrency_key="account 7")
        finally:
            portal.close()
        state.wait_for_status("completed", *(run.id for run in runs))
    assert together.most == PER_KEY
    # Who starts beside each other may overtake each other, but no further.
    assert all(abs(place - number) < PER_KEY for place, number in enumerate(together.started))


def test_rows_stay_in_order_and_the_option_says_so() -> None:
    with pytest.raises(ConfigurationError, match="changes of a row executed one at a time"):

        @task(on=rows("public.posts"), concurrency_per_key=2)
        def index(change: Change[dict[str, int]]) -> None: ...


@pytest.mark.parametrize("runs", [0, 1001, "2"])
def test_a_number_that_makes_no_sense_is_refused(runs: Any) -> None:
    with pytest.raises(ConfigurationError, match="from 1 to 1000"):

        @task(concurrency_per_key=runs)
        def work() -> None: ...
