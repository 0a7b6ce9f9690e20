"""What the transport lost of ready runs is pushed again, once and in order."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.integration.run_state import TASK, RunState, new_run
from tests.integration.runs.keeping import BACKLOG, new_keeper, tick
from triggerkit.runs.keeper.heartbeat import TICK_S
from triggerkit.runs.keeper.keeper import Keeper
from triggerkit.runs.keeper.liveness import FailureDetector
from triggerkit.runs.keeper.recover import CHUNK
from triggerkit.runs.run import RunOptions
from triggerkit.runs.transport.redis import task_key
from triggerkit.settings import Settings

MAKE_OLDER = "UPDATE triggerkit.runs SET rank = rank - 60000000"


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
