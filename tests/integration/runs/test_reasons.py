"""Every run that waits says why, and what helps."""

from __future__ import annotations

import asyncio

from tests.integration.run_state import RunState, completed, failed_attempt, new_run
from triggerkit.runs.admin.browse import list_runs
from triggerkit.state.connect import connect


def reasons(state: RunState) -> list[str | None]:
    """Why each run is not running, in order of arrival."""

    async def looked() -> list[str | None]:
        async with await connect(state.settings.state_dsn, "test") as connection:
            found, _ = await list_runs(connection)
        return [run["reason"] for run in sorted(found, key=lambda run: run["id"])]

    return asyncio.run(looked())


def worker(state: RunState, *tasks: str, slots: int = 2) -> None:
    state.connection.execute(
        "INSERT INTO triggerkit.workers (id, hostname, pid, parent_pid, tasks, slots) "
        "VALUES ('worker-1', 'host', 1, 1, %s, %s)",
        [list(tasks), slots],
    )


def limit(state: RunState, **limits: float) -> None:
    state.connection.execute(
        "INSERT INTO triggerkit.queues (name, concurrency, rate_limit, rate_period_s) "
        "VALUES ('default', %s, %s, %s)",
        [limits.get("concurrency"), limits.get("rate_limit"), limits.get("rate_period_s")],
    )


def test_without_a_worker_it_says_how_to_start_one(state: RunState) -> None:
    state.accept(new_run())
    [reason] = reasons(state)
    assert reason is not None
    assert "no worker is running; start one with: triggerkit worker" in reason


def test_a_worker_that_has_not_told_its_tasks_may_take_any(state: RunState) -> None:
    worker(state)
    state.accept(new_run())
    [reason] = reasons(state)
    assert reason is not None
    assert reason.startswith("waiting for a free slot")


def test_a_task_that_no_worker_has_is_kept_and_says_so(state: RunState) -> None:
    worker(state, "another")
    [handle] = state.accept(new_run())
    [reason] = reasons(state)
    assert reason is not None
    assert reason.startswith("no worker for its task work (queue default) since 2")
    assert "It is kept" in reason
    assert f"triggerkit runs cancel {handle.id}" in reason


def test_a_full_worker_says_how_full(state: RunState) -> None:
    worker(state, "work")
    state.accept(new_run(), new_run(), new_run())
    with state.claims() as claims:
        claims.claim(sorted(state.take())[:2])
    assert reasons(state)[:2] == [None, None]
    assert (
        reasons(state)[2]
        == "waiting for a free slot: 2 runs execute in 1 process with 2 slots for sync and 0 for "
        "async tasks; more with: triggerkit worker"
    )


def test_an_idle_worker_that_gets_nothing_points_at_what_brings_runs(state: RunState) -> None:
    worker(state, "work")
    state.accept(new_run())
    [reason] = reasons(state)
    assert reason is not None
    assert reason.startswith("waiting for a free slot: 0 runs execute")
    state.connection.execute("UPDATE triggerkit.runs SET rank = rank - 6000000")
    [reason] = reasons(state)
    assert reason is not None
    assert reason.endswith(
        "though 1 workers are idle; what carries runs to them may be away, see: triggerkit check"
    )


def test_a_paused_queue_says_how_to_resume_it(state: RunState) -> None:
    worker(state, "work")
    state.accept(new_run())
    state.connection.execute(
        "INSERT INTO triggerkit.queues (name, paused_at) VALUES ('default', '2026-01-02 03:04:05Z')"
    )
    [reason] = reasons(state)
    assert (
        reason == "the queue default is paused since 2026-01-02 03:04:05 UTC; "
        "go on with: triggerkit queues resume default"
    )


def test_a_full_queue_says_its_limit(state: RunState) -> None:
    worker(state, "work")
    limit(state, concurrency=1)
    state.accept(new_run())
    state.accept(new_run())
    first, second = reasons(state)
    assert first is not None
    assert first.startswith("waiting for a free slot")
    assert second is not None
    assert second.startswith("limit 1/1 of the queue default")


def test_a_rate_says_when_it_frees(state: RunState) -> None:
    worker(state, "work")
    limit(state, rate_limit=1, rate_period_s=600)
    state.accept(new_run())
    state.accept(new_run())
    with state.claims() as claims:
        claims.claim(state.take())
    [free_at] = state.rows(
        "SELECT to_char((max(at) + interval '600 s') AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') "
        "FROM triggerkit.starts"
    )
    assert (
        reasons(state)[1] == "rate limit 1 in 600 s of the queue default: the next one may start "
        f"at {free_at} UTC"
    )


def test_a_held_key_names_who_holds_it(state: RunState) -> None:
    worker(state, "work")
    [first] = state.accept(new_run("row/1"))
    state.accept(new_run("row/1"))
    with state.claims() as claims:
        [run] = claims.claim(state.take())
        assert reasons(state)[1] == f"its key is held by {first.id} (executing)"
        claims.complete([failed_attempt(run, 60.0)])
        assert reasons(state)[1] == f"its key is held by {first.id} (retrying)"


def test_delays_and_retries_say_until_when(state: RunState) -> None:
    worker(state, "work")
    state.accept(new_run(delay_s=3600.0))
    state.accept(new_run())
    with state.claims() as claims:
        [run] = claims.claim(state.take())
        claims.complete([failed_attempt(run, 60.0)])
    delayed, retrying = reasons(state)
    due = state.rows(
        "SELECT to_char(scheduled_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') "
        "FROM triggerkit.runs ORDER BY seq"
    )
    assert delayed == f"delayed until {due[0]} UTC"
    assert retrying == f"retry at {due[1]} UTC, after attempt 1 failed"


def test_what_is_due_and_has_no_keeper_says_so(state: RunState) -> None:
    state.accept(new_run(delay_s=0.001))
    state.wait_for(
        lambda: state.rows("SELECT true FROM triggerkit.runs WHERE scheduled_at < now()")
    )
    [reason] = reasons(state)
    assert reason is not None
    assert reason.startswith("due since")
    assert reason.endswith("start one with: triggerkit worker")


def test_what_executes_or_has_ended_has_no_reason(state: RunState) -> None:
    state.accept(new_run(), new_run())
    with state.claims() as claims:
        run, _ = claims.claim(state.take())
        claims.complete([completed(run)])
    assert reasons(state) == [None, None]
