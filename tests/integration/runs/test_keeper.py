"""The keeper: what is due is pushed, what a dead worker held goes on, what Redis lost is filled."""

from __future__ import annotations

import subprocess
import threading
import time
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.integration.run_state import TASK, RunState, failed_attempt, new_run
from triggerkit.runs.keeper.heartbeat import KEEPER_LOCK, TICK_S
from triggerkit.runs.keeper.keeper import Keeper
from triggerkit.runs.keeper.liveness import LONGEST_GAP_S, FailureDetector
from triggerkit.runs.keeper.local import home, started
from triggerkit.runs.keeper.processes import ExecutingProcesses
from triggerkit.runs.keeper.recover import CHUNK, MAX_CRASHES
from triggerkit.runs.keeper.retention import Retention
from triggerkit.runs.run import NewRun, RunOptions
from triggerkit.runs.session import by_index
from triggerkit.runs.transport.open import open_transport
from triggerkit.runs.transport.redis import task_key
from triggerkit.settings import Settings
from triggerkit.state.connect import pinned

MAKE_OLDER = "UPDATE triggerkit.runs SET rank = rank - 60000000"

#: Waiting runs as a large backlog has them.
BACKLOG = """
INSERT INTO triggerkit.runs (id, task, queue, status, max_attempts, payload, rank)
SELECT 'run_' || lpad(n::text, 26, '0'), 'work', 'default', 'queued', 3, '{}',
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 60000000 + n
FROM generate_series(1, %s) n
"""


@pytest.fixture
def keeper(settings: Settings, state: RunState) -> Keeper:
    return new_keeper(settings, state, lease_s=0.0)


def new_keeper(settings: Settings, state: RunState, **given: Any) -> Keeper:
    """A keeper without processes."""
    dsn = pinned(by_index(settings.state_dsn), "triggerkit keeper")
    transport = open_transport(settings, state.namespace)
    retention = Retention(timedelta(days=7))
    return Keeper(dsn, transport, ExecutingProcesses(), threading.Event(), retention, **given)


def tick(keeper: Keeper, state: RunState, times: int = 1) -> float:
    """Look `times` times as one observer; returns the seconds until the next look."""
    detector = FailureDetector(keeper.lease_s)
    return [keeper.tick(state.connection, detector) for _ in range(times)][-1]


def executing(state: RunState, run: NewRun, worker: str, beat: int | None = 1) -> None:
    """Have `run` executed by `worker`, which has a lease unless `beat` is None."""
    with state.claims(worker) as claims:
        assert [claimed.id for claimed in claims.claim([run.id])] == [run.id]
    state.take()
    if beat is None:
        state.connection.execute("DELETE FROM triggerkit.workers WHERE id = %s", [worker])
    else:
        state.connection.execute(
            "UPDATE triggerkit.workers SET beat = %s WHERE id = %s", [beat, worker]
        )


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


def test_what_redis_lost_is_pushed_again_once(state: RunState, keeper: Keeper) -> None:
    runs = [new_run() for _ in range(5)]
    state.accept(*runs, new_run("row"), new_run("row"))
    in_redis = state.pushed()
    state.redis.flushall()
    tick(keeper, state)
    assert state.pushed() == []  # what is this young may be on its way
    state.connection.execute(MAKE_OLDER)
    tick(keeper, state, times=3)
    assert sorted(state.pushed()) == sorted(in_redis)


def test_what_a_worker_took_and_never_claimed_is_found_under_any_backlog(
    state: RunState, keeper: Keeper
) -> None:
    lost, waiting = [new_run() for _ in range(3)], [new_run() for _ in range(100)]
    state.accept(*lost)
    state.take()
    state.connection.execute(MAKE_OLDER)
    state.accept(*waiting)
    tick(keeper, state, times=2)
    assert state.pushed() == [run.id for run in [*lost, *waiting]]


def test_a_backlog_that_is_in_redis_is_not_pushed_again(state: RunState, keeper: Keeper) -> None:
    runs = [new_run() for _ in range(50)]
    state.accept(*runs)
    state.connection.execute(MAKE_OLDER)
    tick(keeper, state, times=2)
    assert state.pushed() == [run.id for run in runs]


@pytest.mark.parametrize("wrong", [b"\xff\x00", b"run_x", b"run_" + b"0" * 26])
def test_wrong_ids_at_the_head_neither_disturb_nor_multiply_runs(
    state: RunState, keeper: Keeper, wrong: bytes
) -> None:
    run, lost = new_run(), new_run()
    state.accept(lost)
    key = task_key(state.namespace, TASK)
    state.redis.delete(key)
    state.redis.zadd(key, {wrong: 0})
    state.connection.execute(MAKE_OLDER)
    tick(keeper, state, times=2)
    assert state.redis.zrange(key, 0, -1) == [wrong]  # a worker takes it away first
    state.accept(run)
    tick(keeper, state, times=2)
    assert state.redis.zrange(key, 0, -1) == [wrong, run.id.encode()]
    state.redis.zrem(key, wrong)
    tick(keeper, state, times=2)
    assert state.pushed() == [lost.id, run.id]


def test_without_redis_postgres_is_kept_and_redis_filled_when_it_is_back(
    state: RunState, keeper: Keeper, settings: Settings
) -> None:
    run = new_run(delay_s=0.001)
    state.accept(run)
    time.sleep(0.01)
    nowhere = Settings.parse({**settings.environment(), "REDIS_URL": "unix:///nowhere/redis.sock"})
    away = new_keeper(nowhere, state)
    tick(away, state)
    state.connection.execute(MAKE_OLDER)
    tick(away, state)
    assert (state.statuses(), state.pushed()) == (["queued"], [])
    tick(keeper, state)
    assert state.pushed() == [run.id]


def test_a_large_backlog_that_was_lost_is_refilled_in_order_as_it_is_worked_off(
    state: RunState, keeper: Keeper
) -> None:
    state.connection.execute(BACKLOG, [3 * CHUNK - 1])
    taken: list[str] = []
    while tick(keeper, state) < TICK_S or state.pushed():
        taken += (chunk := state.take())
        state.connection.execute(
            "UPDATE triggerkit.runs SET status = 'completed', finished_at = now() "
            "WHERE id = ANY (%s)",
            [chunk],
        )
    assert taken == [f"run_{number:026}" for number in range(1, 3 * CHUNK)]


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


def test_a_run_that_was_taken_and_never_claimed_is_missed_amid_others_of_its_age(
    settings: Settings, state: RunState
) -> None:
    keeper = new_keeper(settings, state)
    runs = [new_run() for _ in range(5)]
    state.accept(*runs)
    state.connection.execute(MAKE_OLDER)
    state.take()
    ranks: Any = dict(state.rows("SELECT id, rank FROM triggerkit.runs"))
    lost = ranks.pop(runs[0].id)
    state.redis.zadd(task_key(state.namespace, TASK), ranks)
    assert lost < min(ranks.values())
    detector = FailureDetector(keeper.lease_s)
    keeper.tick(state.connection, detector)
    assert runs[0].id not in state.pushed()
    keeper.tick(state.connection, detector)
    assert state.pushed() == [run.id for run in runs]


def test_young_runs_of_high_priority_do_not_hide_older_ones_that_were_lost(
    settings: Settings, state: RunState
) -> None:
    keeper = new_keeper(settings, state)
    old, urgent = new_run(), new_run(options=RunOptions(priority_s=3600))
    state.accept(old)
    state.connection.execute(MAKE_OLDER)
    state.take()
    state.accept(urgent)
    state.take()
    tick(keeper, state)
    assert old.id in state.pushed()
