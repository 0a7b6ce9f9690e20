"""Runs that wait hold no more than they should, and what they hold up says so."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.integration.run_state import RunState, completed, new_run
from tests.integration.runs.test_reasons import reasons, worker
from tests.integration.worker_thread import working
from triggerkit import task
from triggerkit.errors import ConfigurationError
from triggerkit.runs.run import RunOptions


def test_a_run_that_waits_for_many_frees_one_slot(triggers: RunState) -> None:
    now: list[int] = []
    most: list[int] = []

    @task
    async def child(given: dict[str, int]) -> None:
        now.append(given["n"])
        most.append(len(now))
        await asyncio.sleep(0.01)
        now.pop()

    @task
    async def parent() -> None:
        await asyncio.gather(*(child.atrigger_and_wait({"n": n}) for n in range(50)))

    handle = parent.trigger()
    with working(triggers, child, parent, async_runs=2):
        triggers.wait_for_status("completed", handle.id)
    assert (len(most), max(most)) == (50, 2)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_chain_of_runs_over_one_limited_queue_ends_and_the_limit_holds(
    triggers: RunState, is_async: bool
) -> None:
    triggers.connection.execute(
        "INSERT INTO triggerkit.queues (name, concurrency) VALUES ('narrow', 1)"
    )
    now: list[int] = []
    most: list[int] = []

    def work() -> None:
        now.append(1)
        most.append(len(now))
        time.sleep(0.02)
        now.pop()

    def link(depth: int) -> int:
        work()
        below = 0 if depth == 0 else chain.trigger_and_wait(depth - 1)
        work()
        return int(below) + 1

    async def alink(depth: int) -> int:
        work()
        below = [] if depth == 0 else [chain.atrigger_and_wait(depth - 1) for _ in range(2)]
        found = await asyncio.gather(*below)
        work()
        return int(sum(found)) + 1

    chain: Any = task(name="chain", queue="narrow", retry=1)(alink if is_async else link)
    others = [chain.trigger(0) for _ in range(3)]
    with working(triggers, chain):
        first = chain.trigger(2)
        triggers.wait_for_status("completed", first.id, *(other.id for other in others))
    assert triggers.run(first.id)["output"] == ("7" if is_async else "3")
    assert max(most) == 1
    assert triggers.rows("SELECT DISTINCT gate FROM triggerkit.runs") == [None]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_worker_that_ends_hands_back_a_run_that_waits_for_ever(
    triggers: RunState, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.worker.watchdog.WAITING_S", 0.3)
    heard: list[str] = []

    @task
    def child() -> None: ...

    @task(name="parent")
    def parent() -> Any:
        return child.trigger_and_wait()

    async def waits() -> Any:
        return await child.atrigger_and_wait()

    made: Any = task(name="aparent")(waits) if is_async else parent
    made.on_failure(lambda *_: heard.append("failure"))
    handle = made.trigger()
    with working(triggers, made):
        triggers.wait_for(lambda: len(triggers.statuses()) == 2)
        ended_at = time.monotonic()
    assert time.monotonic() - ended_at < 10
    row = triggers.run(handle.id)
    assert (row["status"], row["attempt"], row["crashes"], row["worker"]) == ("queued", 0, 0, None)
    assert triggers.pushed(made.name) == [handle.id]
    assert heard == []


@pytest.mark.parametrize("is_within_a_thread", [False, True])
def test_a_wait_that_would_block_the_event_loop_is_refused(
    triggers: RunState, is_within_a_thread: bool
) -> None:
    @task(retry=1)
    async def child() -> str:
        return "done"

    @task(retry=1)
    async def parent() -> Any:
        if is_within_a_thread:
            return await asyncio.to_thread(child.trigger_and_wait)
        return child.trigger_and_wait()

    handle = parent.trigger()
    with working(triggers, child, parent, async_runs=2):
        if is_within_a_thread:
            triggers.wait_for_status("completed", handle.id)
            return
        [row] = triggers.wait_for_status("failed", handle.id)
    assert row["error"]["type"] == ConfigurationError.__name__
    assert "use `await task.atrigger_and_wait(…)`" in row["error"]["message"]
    assert len(triggers.statuses()) == 1


def test_a_run_that_is_long_delayed_and_holds_its_key_is_told_with_the_remedy(
    state: RunState,
) -> None:
    worker(state, "work")
    [first] = state.accept(new_run("row/1", delay_s=7 * 86400.0))
    state.accept(new_run("row/1"))
    [until] = state.rows(
        "SELECT to_char(scheduled_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') "
        "FROM triggerkit.runs WHERE id = %s",
        first.id,
    )
    assert reasons(state)[1] == (
        f"its key is held by {first.id} (delayed) until {until} UTC; "
        f"end that with: triggerkit runs cancel {first.id}"
    )


def test_a_limit_names_who_holds_it_and_waits(state: RunState) -> None:
    worker(state, "work")
    state.connection.execute(
        "INSERT INTO triggerkit.queues (name, concurrency) VALUES ('narrow', 1)"
    )
    [parent] = state.accept(new_run(queue="narrow"))
    with state.claims() as claims:
        [claimed] = claims.claim(state.take())
        options = RunOptions(parent_id=parent.id, awaited=True)
        [child] = state.accept(new_run(queue="narrow", options=options))
        assert reasons(state)[1] == (
            "limit 1/1 of the queue narrow: it starts when one of those ends "
            f"({parent.id} of them waits for {child.id}); "
            "more with: triggerkit queues limit narrow --concurrency"
        )
        claims.complete([completed(claimed)])
