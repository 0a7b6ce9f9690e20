"""The keeper: what is due is pushed, what a dead worker held goes on, and one keeps at a time."""

from __future__ import annotations

import subprocess
import threading
import time
from typing import Any

import psycopg

from tests.integration.run_state import TASK, RunState, failed_attempt, new_run
from tests.integration.runs.keeping import BACKLOG, executing, new_keeper, tick
from triggerkit.runs.keeper.heartbeat import KEEPER_LOCK, TICK_S
from triggerkit.runs.keeper.keeper import Keeper
from triggerkit.runs.keeper.liveness import LONGEST_GAP_S, FailureDetector
from triggerkit.runs.keeper.local import home, started
from triggerkit.runs.keeper.recover import MAX_CRASHES
from triggerkit.runs.transport.redis import task_key
from triggerkit.settings import Settings


def test_a_run_is_queued_when_its_time_has_come_and_not_before(
    state: RunState, keeper: Keeper
) -> None:
    soon, late = new_run(delay_s=0.2), new_run(delay_s=60.0)
    state.accept(soon, late)
    wait_s = tick(keeper, state)
    assert 0 < wait_s <= 0.2
    assert state.pushed() == []
    time.sleep(wait_s)
    tick(keeper, state)
    assert state.pushed() == [soon.id]
    assert state.statuses() == ["queued", "delayed"]
    assert tick(keeper, state) == TICK_S


def test_a_due_retry_is_queued_again_with_its_attempts(state: RunState, keeper: Keeper) -> None:
    run = new_run()
    state.accept(run)
    with state.claims() as claims:
        claims.complete([failed_attempt(r, retry_in_s=0.0) for r in claims.claim(state.take())])
        tick(keeper, state)
        assert state.pushed() == [run.id]
        assert [claimed.attempt for claimed in claims.claim(state.take())] == [2]


def test_a_due_run_behind_its_key_is_not_pushed(state: RunState, keeper: Keeper) -> None:
    first, due = new_run("row"), new_run("row", delay_s=0.001)
    state.accept(first, due)
    state.take()
    time.sleep(0.01)
    tick(keeper, state)
    assert (state.run(due.id)["status"], state.pushed()) == ("queued", [])


def test_runs_of_a_dead_worker_are_queued_again_and_its_lease_goes(
    state: RunState, keeper: Keeper
) -> None:
    run = new_run()
    state.accept(run)
    executing(state, run, "dead")
    tick(keeper, state, times=2)
    row = state.run(run.id)
    assert (row["status"], row["crashes"], state.pushed()) == ("queued", 1, [run.id])
    assert row["error"]["type"] == "WorkerDied"
    attempts = "SELECT attempt, status, worker FROM triggerkit.attempts"
    assert state.rows(attempts) == [(1, "crashed", "dead")]
    assert state.rows("SELECT id FROM triggerkit.workers") == []


def test_a_worker_that_beats_keeps_its_runs(state: RunState, keeper: Keeper) -> None:
    run, detector = new_run(), FailureDetector(keeper.lease_s)
    state.accept(run)
    executing(state, run, "alive")
    for _ in range(3):
        keeper.tick(state.connection, detector)
        state.connection.execute("UPDATE triggerkit.workers SET beat = beat + 1")
    assert state.statuses() == ["executing"]


def test_a_run_of_a_worker_without_a_lease_is_queued_at_once(
    state: RunState, keeper: Keeper
) -> None:
    run = new_run()
    state.accept(run)
    executing(state, run, "gone", beat=None)
    tick(keeper, state)
    assert state.pushed() == [run.id]


def test_a_run_that_kills_its_workers_is_given_up_and_lets_its_key_go_on(
    state: RunState, keeper: Keeper
) -> None:
    killer, behind = new_run("row"), new_run("row")
    state.accept(killer, behind)
    for crash in range(1, MAX_CRASHES + 1):
        executing(state, killer, f"victim-{crash}", beat=None)
        tick(keeper, state)
    row = state.run(killer.id)
    assert (row["status"], row["attempt"], row["crashes"]) == ("crashed", 3, MAX_CRASHES)
    assert state.pushed() == [behind.id]
    assert state.broken_keys() == []


def test_a_large_backlog_costs_a_look_no_more(state: RunState, keeper: Keeper) -> None:
    state.connection.execute(BACKLOG, [100_000])
    in_redis = [f"run_{number:026}" for number in range(1, 1001)]
    state.redis.zadd(task_key(state.namespace, TASK), dict.fromkeys(in_redis, 0))
    state.connection.execute("VACUUM ANALYZE triggerkit.runs")
    tick(keeper, state)
    started = time.monotonic()
    tick(keeper, state, times=5)
    each_s = (time.monotonic() - started) / 5
    print(f"{each_s * 1000:.1f} ms a look")
    # Reading them all takes longer. The bound leaves room for a busy machine.
    assert each_s < 0.05
    assert state.pushed() == in_redis


def test_an_idle_look_is_one_query_and_no_command_to_redis(state: RunState, keeper: Keeper) -> None:
    class Counting(psycopg.Cursor[Any]):
        def execute(self, *args: Any, **kwargs: Any) -> Any:
            queries.append(args)
            return super().execute(*args, **kwargs)

    queries: list[Any] = []
    state.accept(new_run(delay_s=60.0))
    state.connection.cursor_factory = Counting
    before = state.redis.info("stats")["total_commands_processed"]
    tick(keeper, state, times=10)
    assert len(queries) == 10
    assert state.redis.info("stats")["total_commands_processed"] - before == 1


def test_one_keeps_at_a_time_and_another_takes_over(settings: Settings, state: RunState) -> None:
    holder = (
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )

    def wait_for_another(than: int) -> int:
        deadline = time.monotonic() + 10
        while (pids := state.rows(holder, KEEPER_LOCK)) in ([], [than]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert len(pids) == 1
        return int(pids[0])

    keepers = [new_keeper(settings, state, lease_s=0.0) for _ in range(2)]
    threads = [threading.Thread(target=keeper.run) for keeper in keepers]
    for thread in threads:
        thread.start()
    first = wait_for_another(0)
    state.connection.execute("SELECT pg_terminate_backend(%s)", [first])
    wait_for_another(first)
    for keeper in keepers:
        keeper.stop.set()
    for thread in threads:
        thread.join()


def test_a_worker_is_dead_only_after_its_lease_was_watched() -> None:
    detector = FailureDetector(lease_s=3.0)
    assert [detector.dead({"w": 1}, now) for now in (100, 101, 102, 103)] == [[], [], [], []]
    assert detector.dead({"w": 1}, 103.5) == ["w"]
    assert detector.dead({"w": 2}, 104) == []


def test_an_observer_that_stood_still_declares_nobody_dead() -> None:
    detector = FailureDetector(lease_s=LONGEST_GAP_S + 1)
    detector.dead({"w": 1}, 100)
    assert detector.dead({"w": 1}, 1000) == []


def test_a_process_of_this_machine_that_has_ended_is_dead_before_its_lease_is_over(
    settings: Settings, state: RunState
) -> None:
    keeper = new_keeper(settings, state)
    runs = [new_run() for _ in range(3)]
    state.accept(*runs)
    for run, name in zip(runs, ("alive", "ended", "elsewhere"), strict=True):
        executing(state, run, name)
    place = "UPDATE triggerkit.workers SET home = %s, pid = %s, pid_started = %s WHERE id = %s"
    with subprocess.Popen(["sleep", "60"]) as alive, subprocess.Popen(["sleep", "60"]) as ended:
        for process, name in ((alive, "alive"), (ended, "ended")):
            given = [home(), process.pid, started(process.pid), name]
            state.connection.execute(place, given)
        state.connection.execute(place, ["another machine", ended.pid, 1, "elsewhere"])
        tick(keeper, state)
        assert state.statuses() == ["executing"] * 3
        ended.kill()
        # Not waited for: a process that nobody has asked how it ended is dead all the same.
        state.wait_for(lambda: started(ended.pid) is None)
        tick(keeper, state)
        assert state.statuses() == ["executing", "queued", "executing"]
        alive.kill()


def test_who_takes_over_knows_who_was_silent_before(settings: Settings, state: RunState) -> None:
    keeper = new_keeper(settings, state, lease_s=0.0)
    run = new_run()
    state.accept(run)
    executing(state, run, "silent")
    with psycopg.connect(**keeper.dsn, autocommit=True) as connection:
        for _ in range(2):
            keeper.heartbeat.beat(connection)
        keeper.tick(connection, keeper.heartbeat.detector)
    assert state.statuses() == ["queued"]
