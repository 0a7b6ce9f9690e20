"""Runs that go on: of a process that died, given back, named by a wake, of a paused queue."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pytest

from tests.integration.run_state import TASK, RunState, completed, failed_attempt, new_run
from tests.integration.worker_thread import Order, executing, working
from triggerkit import task
from triggerkit.runs.accept.within import accept_within, accept_within_async
from triggerkit.runs.claim import RunClaims
from triggerkit.runs.keeper.keeper import LEASE_S
from triggerkit.runs.keeper.processes import ExecutingProcess, ExecutingProcesses
from triggerkit.runs.keeper.retention import Retention
from triggerkit.runs.run import ClaimedRun, ReadyRun, first_run_id_at
from triggerkit.runs.transport.open import open_transport
from triggerkit.settings import Settings
from triggerkit.state.channels import KEEPER
from triggerkit.supervisor.worker import keep
from triggerkit.worker.fetch.fetcher import Fetcher
from triggerkit.worker.fetch.slots import Slots

#: Threads of a worker that are given many runs at once.
MANY_SLOTS = 40


@contextmanager
def keeping(state: RunState, *ids: str) -> Iterator[ExecutingProcesses]:
    """The keeper of a worker with processes `ids`, which execute nothing by themselves."""
    processes, stop = ExecutingProcesses(), threading.Event()
    for number, worker_id in enumerate(ids):
        processes.join(ExecutingProcess(worker_id, number, [], 1, 1, lambda _: None))
    thread = keep(state.settings, state.namespace, processes, stop)
    assert all(processes.wait_until_held(worker_id, 10) for worker_id in ids)
    try:
        yield processes
    finally:
        stop.set()
        processes.wake()
        thread.join()


def claim(state: RunState, worker_id: str, run_id: str) -> ClaimedRun:
    with state.claims(worker_id) as claims:
        [claimed] = claims.claim([run_id])
        return claimed


def test_runs_of_a_member_that_died_go_to_others_at_once(state: RunState) -> None:
    of_dead, of_living = new_run(), new_run()
    with keeping(state, "dead", "living") as processes:
        state.wait_for(lambda: len(state.rows("SELECT id FROM triggerkit.workers")) == 2)
        state.accept(of_dead, of_living)
        state.take()
        claim(state, "dead", of_dead.id)
        claim(state, "living", of_living.id)
        died_at = time.monotonic()
        processes.leave("dead")
        state.wait_for(lambda: state.pushed() == [of_dead.id])
        assert time.monotonic() - died_at < LEASE_S / 2
        assert state.rows("SELECT id FROM triggerkit.workers") == ["living"]
        row = state.run(of_dead.id)
        assert (row["crashes"], row["error"]["type"]) == (1, "WorkerDied")
        assert claim(state, "living", of_dead.id).attempt == 2
        assert state.run(of_living.id)["status"] == "executing"


def test_a_run_given_back_was_never_claimed(state: RunState) -> None:
    run = new_run(max_attempts=1)
    state.accept(run)
    rank = state.run(run.id)["rank"]
    with state.claims("busy") as busy, state.claims("free") as free:
        claimed = busy.claim(state.take(), "name")
        assert busy.give_back(claimed) == [ReadyRun(TASK, run.id, rank)]
        assert busy.claimed_as("name") == []
        [again] = free.claim([run.id])
        assert (again.attempt, again.is_last_attempt) == (1, True)
        # Asked a second time, as when the first answer was lost: it is another's now.
        assert busy.give_back(claimed) == []
        free.complete([completed(again)])
    assert state.attempts(run.id) == [(1, "completed", "free")]


class Breaking(RunClaims):
    """Loses the connection before or after it gives runs back."""

    is_done = False

    def give_back(self, runs: Sequence[ClaimedRun]) -> list[ReadyRun]:
        if self.is_done:
            super().give_back(runs)
        raise psycopg.OperationalError("server closed the connection unexpectedly")


class BreakingAfter(Breaking):
    """Gives them back, and loses the answer."""

    is_done = True


@pytest.mark.parametrize(("breaking", "told"), [(Breaking, 2), (BreakingAfter, 0)])
def test_runs_are_given_back_through_a_loss_of_postgres(
    state: RunState, monkeypatch: pytest.MonkeyPatch, breaking: type[RunClaims], told: int
) -> None:
    monkeypatch.setattr("triggerkit.worker.fetch.fetcher.RETRY_S", 0.0)
    kinds: list[type[RunClaims]] = [breaking, breaking, RunClaims]

    def open_claims() -> RunClaims:
        connection = psycopg.connect(state.settings.state_dsn, autocommit=True)
        return kinds.pop(0)(connection, "worker-1", [TASK])

    runs = [new_run(), new_run()]
    state.accept(*runs)
    with state.claims() as claims:
        claimed = claims.claim(state.take())
    transport = open_transport(state.settings, state.namespace)
    fetcher = Fetcher(transport.source([TASK]), open_claims, Slots(1))
    assert len(fetcher.give_back(claimed)) == told
    fetcher.close()
    assert [(state.run(r.id)["status"], state.run(r.id)["attempt"]) for r in runs] == [
        ("queued", 0)
    ] * 2


def test_runs_claimed_for_quick_threads_that_became_slow_are_begun_by_free_ones(
    state: RunState,
) -> None:
    begun: set[int] = set()
    go_on = threading.Event()

    @task(retry=1)
    def slowing(order: Order) -> None:
        if order.number:
            begun.add(order.number)
            assert go_on.wait(20)

    quick = [slowing.new_run({"number": 0}) for _ in range(50)]
    slow = [slowing.new_run({"number": n}) for n in range(1, MANY_SLOTS + 3)]
    try:
        with executing(state.settings, state.namespace, slowing, threads=MANY_SLOTS):
            state.accept(*quick)
            state.wait_for_status("completed", *ids_of_runs(quick))
            state.accept(*slow)
            # Were as many claimed again for each thread, it would take ten seconds.
            state.wait_for(lambda: len(begun) == MANY_SLOTS, 5)
            # Those that no slot is free for are in Redis, where other workers find them.
            state.wait_for(lambda: len(state.pushed("slowing")) == 2, 5)
            assert state.statuses().count("queued") == 2
            go_on.set()
            state.wait_for_status("completed", *ids_of_runs(slow))
    finally:
        go_on.set()
    assert {state.run(run.id)["attempt"] for run in slow} == {1}


def ids_of_runs(runs: Sequence[object]) -> list[str]:
    return [run.id for run in runs]  # type: ignore[attr-defined]


def test_runs_named_by_a_wake_are_pushed_at_once_if_they_are_ready(state: RunState) -> None:
    ready, done, delayed = new_run(), new_run(), new_run(delay_s=60.0)
    state.accept(ready, done, delayed)
    state.take()
    with keeping(state, "worker-1"):
        with state.claims() as claims:
            claims.complete([completed(run) for run in claims.claim([done.id])])
        payload = ",".join([done.id, "no id", delayed.id, ready.id])
        # As often as the keeper needs to lead: it listens before.
        state.connection.execute("SELECT pg_notify(%s, %s)", [KEEPER, payload])
        state.wait_for(lambda: state.pushed() == [ready.id])


def test_a_run_accepted_in_a_callers_transaction_starts_once_that_commits_and_never_else(
    state: RunState, settings: Settings
) -> None:
    calls: list[int] = []

    @task
    def within(order: Order) -> None:
        calls.append(order.number)

    async def accept_and_roll_back() -> None:
        async with await psycopg.AsyncConnection.connect(settings.state_dsn) as connection:
            await accept_within_async(connection, [within.new_run({"number": 2})])
            await connection.rollback()

    with working(state, within), psycopg.connect(settings.state_dsn) as connection:
        accept_within(connection, [within.new_run({"number": 1})])
        connection.rollback()
        asyncio.run(accept_and_roll_back())
        done = within.new_run({"number": 3})
        accept_within(connection, [done])
        assert state.statuses() == []
        committed_at = time.monotonic()
        connection.commit()
        state.wait_for_status("completed", done.id)
        print(f"{time.monotonic() - committed_at:.3f} s from the commit to the run's end")
    assert calls == [3]


def test_retention_removes_old_finished_runs_with_all_of_theirs_and_nothing_else(
    state: RunState,
) -> None:
    week_ago = time.time() - 7 * 86400

    def made_at(seconds: float) -> str:
        run = new_run(id=first_run_id_at(seconds))
        state.accept(run)
        return run.id

    old = [made_at(week_ago - n) for n in (10, 11)]
    unfinished = made_at(week_ago - 12)
    finished_lately = made_at(week_ago - 13)
    young = made_at(week_ago + 3600)
    with state.claims() as claims:
        for run in claims.claim([*old, finished_lately, young]):
            claims.complete([failed_attempt(run, retry_in_s=0.0)])
    for run_id in (*old, unfinished, finished_lately, young):
        state.connection.execute(
            "INSERT INTO triggerkit.spans (run_id, attempt, kind, name, started_at)"
            " VALUES (%s, 1, 'log', 'a line', now())",
            [run_id],
        )
    finish = "UPDATE triggerkit.runs SET status = 'failed', finished_at = %s WHERE id = ANY (%s)"
    state.connection.execute(finish, ["-infinity", [*old, young]])
    state.connection.execute(finish, ["now", [finished_lately]])
    retention = Retention(timedelta(days=7))
    assert retention.apply(state.connection) == 2
    kept = {unfinished, finished_lately, young}
    assert set(state.rows("SELECT id FROM triggerkit.runs")) == kept
    assert set(state.rows("SELECT run_id FROM triggerkit.spans")) == kept
    assert set(state.rows("SELECT run_id FROM triggerkit.attempts")) == {finished_lately, young}
    assert retention.apply(state.connection) == 0


def test_retention_takes_small_chunks_until_all_is_removed(
    state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.runs.keeper.retention.CHUNK", 2)
    for n in range(5):
        state.accept(new_run(id=first_run_id_at(1000 + n)))
    state.connection.execute(
        "UPDATE triggerkit.runs SET status = 'completed', finished_at = '1970-01-02'"
    )
    monkeypatch.setattr("triggerkit.runs.keeper.retention.LINES", 3)
    state.connection.execute(
        "INSERT INTO triggerkit.spans (run_id, attempt, kind, name, started_at)"
        " SELECT id, 1, 'log', 'a line', now() FROM triggerkit.runs, generate_series(1, 10)"
    )
    retention = Retention(timedelta(days=7))
    asked: list[bool] = []

    def is_over() -> bool:
        asked.append(True)
        return len(asked) > 9

    # At its end it stops between two statements.
    assert retention.apply(state.connection, is_over) == 2
    assert state.rows("SELECT count(*) FROM triggerkit.runs") == [3]
    assert retention.apply(state.connection) == 3
    assert state.rows("SELECT count(*) FROM triggerkit.spans") == [0]
    assert retention.apply(state.connection) == 0


def test_runs_of_a_paused_queue_that_are_in_redis_already_start_when_it_goes_on(
    state: RunState,
) -> None:
    calls: list[int] = []

    @task(queue="paused")
    def held(order: Order) -> None:
        calls.append(order.number)

    @task(queue="open")
    def other(order: Order) -> None: ...

    run, beside = held.new_run({"number": 1}), other.new_run({"number": 2})
    state.accept(run)
    state.connection.execute(
        "INSERT INTO triggerkit.queues (name, paused_at) VALUES ('paused', now())"
    )
    with working(state, held, other):
        state.wait_for(lambda: state.pushed("held") == [])
        state.accept(beside)
        state.wait_for_status("completed", beside.id)
        assert (state.run(run.id)["status"], calls) == ("queued", [])
        state.connection.execute("UPDATE triggerkit.queues SET paused_at = NULL")
        state.wait_for_status("completed", run.id)
    assert calls == [1]
