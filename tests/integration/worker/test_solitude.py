"""Deaths of workers: what is to blame for one, and the run that executes alone to find out."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.integration.run_state import RunState, new_run
from tests.integration.worker_thread import Order, executing
from triggerkit import task
from triggerkit.runs.claim import SUSPECT
from triggerkit.runs.keeper.keeper import Keeper
from triggerkit.runs.keeper.liveness import FailureDetector
from triggerkit.runs.keeper.processes import ExecutingProcess, ExecutingProcesses
from triggerkit.runs.keeper.recover import MAX_CRASHES, MAX_SUSPECTED
from triggerkit.runs.keeper.retention import Retention
from triggerkit.runs.session import by_index
from triggerkit.runs.transport.open import open_transport
from triggerkit.state.connect import pinned
from triggerkit.tasks.task import Task


def keeper_of(state: RunState, *ids: str) -> Keeper:
    """A keeper of processes that are there as long as they send heartbeats."""
    processes = ExecutingProcesses()
    for worker_id in ids:
        processes.join(ExecutingProcess(worker_id, 1, [], 1, 1, lambda _: None))
    return Keeper(
        pinned(by_index(state.settings.state_dsn), "triggerkit keeper"),
        open_transport(state.settings, state.namespace),
        processes,
        threading.Event(),
        Retention(timedelta(days=7)),
        lease_s=0.0,
    )


def die(state: RunState, *run_ids: str, deploy: bool = False) -> None:
    """Have a worker die while it executes the runs."""
    keeper = keeper_of(state, "worker")
    if deploy:
        keeper.processes.begin_to_stop()
    keeper.heartbeat.beat(state.connection)
    with state.claims("worker") as claims:
        assert len(claims.claim(run_ids)) == len(run_ids)
    state.take()
    detector, another = FailureDetector(0.0), keeper_of(state)
    for _ in range(2):
        another.tick(state.connection, detector)


def test_deploys_that_kill_a_long_run_do_not_make_it_crashed(state: RunState) -> None:
    [long] = state.accept(new_run())
    for _ in range(MAX_CRASHES + 1):
        die(state, long.id, deploy=True)
    assert (state.run(long.id)["status"], state.run(long.id)["crashes"]) == ("queued", 0)
    assert state.rows("SELECT DISTINCT status FROM triggerkit.attempts") == ["crashed"]


def test_a_death_is_blamed_on_the_run_that_executed_alone(state: RunState) -> None:
    killer, beside = state.accept(new_run(), new_run())
    for _ in range(MAX_CRASHES):
        die(state, killer.id, beside.id)
    assert state.statuses() == ["queued", "queued"]
    die(state, killer.id)
    assert state.statuses() == ["crashed", "queued"]


def test_a_run_that_is_never_alone_is_given_up_in_the_end(state: RunState) -> None:
    killer = state.accept(new_run())[0].id
    for _ in range(MAX_SUSPECTED):
        die(state, killer, state.accept(new_run())[0].id)
    assert state.run(killer)["status"] == "crashed"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_run_with_two_crashes_executes_alone(state: RunState, is_async: bool) -> None:
    now: list[int] = []
    beside: dict[int, list[int]] = {}
    go_on = threading.Event()

    def begin(order: Order) -> None:
        beside[order.number] = list(now)
        now.append(order.number)

    @task(name="sync_one")
    def sync_one(order: Order) -> None:
        begin(order)
        assert go_on.wait(20)
        now.remove(order.number)

    @task(name="async_one")
    async def async_one(order: Order) -> None:
        begin(order)
        assert await asyncio.to_thread(go_on.wait, 20)
        now.remove(order.number)

    tasks: tuple[Task[Any, Any, Any], ...] = (sync_one, async_one)
    made, other = reversed(tasks) if is_async else tasks
    first = [t.new_run({"number": n}) for n, t in enumerate(tasks)]
    suspect = replace(made.new_run({"number": 10}), delay_s=60.0)
    after = [t.new_run({"number": 20 + n}) for n, t in enumerate((made, other, other))]
    state.accept(*first)
    with executing(state.settings, state.namespace, sync_one, async_one):
        state.wait_for(lambda: len(now) == 2)
        state.accept(suspect)
        state.connection.execute(
            "UPDATE triggerkit.runs SET crashes = %s, status = 'queued' WHERE id = %s",
            [SUSPECT, suspect.id],
        )
        state.push(suspect.id, task=made.name)
        state.wait_for(lambda: not state.pushed(made.name))
        state.accept(*after)
        go_on.set()
        state.wait_for_status("completed", suspect.id)
        state.push(*(r.id for r in after if r.task == made.name), task=made.name)
        state.push(*(r.id for r in after if r.task == other.name), task=other.name)
        state.wait_for_status("completed", *(run.id for run in after))
    assert beside[10] == []
    assert all(10 not in others for others in beside.values())


def test_a_run_that_waits_for_its_child_is_not_alone_meanwhile(triggers: RunState) -> None:
    @task(retry=1)
    async def child() -> str:
        return "done"

    @task(retry=1)
    async def parent() -> object:
        return await child.atrigger_and_wait()

    handle = parent.trigger()
    triggers.connection.execute("UPDATE triggerkit.runs SET crashes = %s", [SUSPECT])
    with executing(triggers.settings, triggers.namespace, parent, child):
        triggers.wait_for_status("completed", handle.id)
    assert triggers.run(handle.id)["output"] == '"done"'
