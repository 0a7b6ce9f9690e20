"""Waiting for a run's end: from outside, and inside of runs, which must not block each other."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.run_state import RunState
from tests.integration.worker_thread import executing, working
from triggerkit import Debounce, RunFailed, task
from triggerkit.errors import ConfigurationError


@task(name="awaited_double")
def double(given: dict[str, int]) -> dict[str, int]:
    """Doubles n."""
    return {"n": given["n"] * 2}


@task(name="awaited_adouble")
async def adouble(given: dict[str, int]) -> int:
    """Doubles n."""
    await asyncio.sleep(0.01)
    return given["n"] * 2


def test_the_output_comes_back_to_sync_and_async_callers(triggers: RunState) -> None:
    with working(triggers, double, adouble):
        assert double.trigger_and_wait({"n": 2}) == {"n": 4}
        assert asyncio.run(adouble.atrigger_and_wait({"n": 4}, timeout=10)) == 8


def test_a_run_that_ends_without_success_raises(triggers: RunState) -> None:
    @task(retry=1)
    def doomed() -> None:
        raise ValueError("no luck")

    with working(triggers, doomed):
        with pytest.raises(RunFailed, match="is failed: no luck") as raised:
            doomed.trigger_and_wait()
        assert raised.value.status == "failed"
        with pytest.raises(RunFailed, match="is expired"):
            double.trigger_and_wait({"n": 1}, ttl=0.2)


def test_a_wait_that_takes_too_long_ends_and_the_run_goes_on(triggers: RunState) -> None:
    with pytest.raises(TimeoutError):
        double.trigger_and_wait({"n": 1}, timeout=0.2)
    assert triggers.statuses() == ["queued"]


def test_more_runs_wait_for_runs_of_their_own_than_there_are_slots(triggers: RunState) -> None:
    count = 40

    @task
    def patient(given: dict[str, int]) -> Any:
        return parent_of.trigger_and_wait(given)

    @task
    def parent_of(given: dict[str, int]) -> Any:
        return double.trigger_and_wait(given, delay=0.5)

    @task
    async def aparent(given: dict[str, int]) -> Any:
        return await adouble.atrigger_and_wait(given)

    tasks = (patient, parent_of, aparent, double, adouble)
    with working(triggers, *tasks, threads=2, async_runs=2):
        numbers = [{"n": n} for n in range(count)]
        handles = patient.trigger_many(numbers)
        ahandles = aparent.trigger_many(numbers)
        triggers.wait_for(lambda: len(set(triggers.statuses())) == 1, 60)
        triggers.wait_for_status("completed", *(h.id for h in [*handles, *ahandles]))


def test_a_worker_that_stops_has_waiting_runs_finish(triggers: RunState) -> None:
    @task
    def parent() -> Any:
        return double.trigger_and_wait({"n": 2})

    handle = parent.trigger()

    def leave(work: Any) -> None:
        with work:
            triggers.wait_for(lambda: len(triggers.statuses()) == 2)

    with working(triggers, task(name="idle")(lambda: None)):
        worker = executing(triggers.settings, triggers.namespace, parent, worker_id=known(triggers))
        stopping = threading.Thread(target=leave, args=[worker])
        stopping.start()
        triggers.wait_for(lambda: len(triggers.statuses()) == 2)
        stopping.join(0.5)
        assert stopping.is_alive()
        with executing(triggers.settings, triggers.namespace, double, worker_id=known(triggers)):
            stopping.join(20)
    [row] = triggers.wait_for_status("completed", handle.id)
    assert (row["output"], row["crashes"]) == ('{"n":4}', 0)


def known(state: RunState) -> str:
    """The id of the worker whose lease is kept."""
    return str(state.rows("SELECT id FROM triggerkit.workers")[0])


def test_waiting_for_a_run_of_ones_own_key_is_refused(triggers: RunState) -> None:
    @task(retry=1)
    def with_key(again: bool) -> Any:
        return with_key.trigger_and_wait(again, concurrency_key="k")

    handle = with_key.trigger(True, concurrency_key="k")
    with working(triggers, with_key):
        [row] = triggers.wait_for_status("failed", handle.id)
    assert row["error"]["type"] == "ConfigurationError"
    assert "its own concurrency key" in row["error"]["message"]


def test_who_waits_cannot_have_the_run_wait_for_a_commit(triggers: RunState) -> None:
    with pytest.raises(ConfigurationError, match="leave out connection="):
        double.trigger_and_wait({"n": 1}, connection=triggers.connection)


def test_waiting_for_a_run_that_was_there_already_ends_with_it(triggers: RunState) -> None:
    first = double.trigger({"n": 3}, idempotency_key="shared")
    debounce = Debounce("page", 0.5)
    debounced = double.trigger({"n": 1}, debounce=debounce)
    with ThreadPoolExecutor() as threads:
        waits = [
            threads.submit(double.trigger_and_wait, {"n": 3}, timeout=20, idempotency_key="shared"),
            threads.submit(double.trigger_and_wait, {"n": 5}, timeout=20, debounce=debounce),
        ]
        awaited = "SELECT id FROM triggerkit.runs WHERE awaited ORDER BY id"
        triggers.wait_for(lambda: triggers.rows(awaited) == sorted([first.id, debounced.id]))
        with working(triggers, double):
            assert [wait.result() for wait in waits] == [{"n": 6}, {"n": 10}]
            assert double.trigger_and_wait({"n": 3}, idempotency_key="shared") == {"n": 6}


def test_a_run_that_would_wait_for_itself_is_told_so(triggers: RunState) -> None:
    @task(retry=1)
    def again(given: dict[str, int]) -> Any:
        return again.trigger_and_wait(given, idempotency_key="one")

    handle = again.trigger({"n": 1}, idempotency_key="one")
    with working(triggers, again):
        [run] = triggers.wait_for_status("failed", handle.id)
    assert "would wait for itself" in run["error"]["message"]
