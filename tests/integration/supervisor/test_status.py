"""`triggerkit status` sees the tasks that wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import psycopg

from tests.integration.run_state import RunState, completed, failed_attempt, new_run
from triggerkit.runs.run import ClaimedRun, Outcome, RunError
from triggerkit.supervisor.status import read_health

WAITS = "UPDATE triggerkit.runs SET waits = 12, created_at = '2026-01-01' WHERE id = %s"
CANCEL = "UPDATE triggerkit.runs SET status = 'canceled', finished_at = now() WHERE id = %s"


def busy(run: ClaimedRun, retry_in_s: float = 30.0) -> Outcome:
    """The outcome of an attempt that found what its task calls busy."""
    error = RunError("RateLimitError", "Error code: 429\nand more", "")
    return replace(failed_attempt(run, retry_in_s), error=error, waited=True, away=True)


def waiting(state: RunState) -> list[dict[str, Any]]:
    return asyncio.run(read_health(state.settings))["waiting"]


def test_a_task_that_waits_for_what_it_calls_is_an_error_with_its_cause(state: RunState) -> None:
    state.accept(new_run(), new_run(), new_run())
    with state.claims() as claims:
        [run, other] = claims.claim(state.take()[:2])
        assert waiting(state) == []
        claims.complete([busy(run), completed(other)])
    [task] = waiting(state)
    assert (task["task"], task["runs"], task["error"]) == (
        "work",
        2,
        "RateLimitError: Error code: 429",
    )
    [problem] = task["problems"]
    assert (problem["name"], problem["severity"]) == ("away", "error")
    assert "RateLimitError: Error code: 429" in problem["detail"]
    assert "triggerkit runs list --task work" in problem["remedy"]


def test_a_task_whose_runs_were_canceled_waits_for_nothing(state: RunState) -> None:
    state.accept(new_run())
    with state.claims() as claims:
        [run] = claims.claim(state.take())
        claims.complete([busy(run)])
    assert len(waiting(state)) == 1
    state.connection.execute(
        "UPDATE triggerkit.runs SET status = 'canceled', finished_at = now() WHERE id = %s",
        [run.id],
    )
    assert waiting(state) == []


def test_runs_that_ask_again_and_again_to_be_tried_later_are_an_error(state: RunState) -> None:
    [handle] = state.accept(new_run())
    with state.claims() as claims:
        [run] = claims.claim(state.take())
        claims.complete([replace(failed_attempt(run, 600), waited=True)])
    assert waiting(state) == []
    state.connection.execute(WAITS, [handle.id])
    [task] = waiting(state)
    [problem] = task["problems"]
    assert (problem["name"], problem["severity"]) == ("asks_again", "error")
    assert (
        "asked 12 times or more to be tried again later: 1 (ValueError: no luck)"
        in problem["detail"]
    )
    assert problem["remedy"] == f"triggerkit runs show {handle.id}"


def looked(state: RunState, name: str, **workers: Any) -> list[dict[str, Any]]:
    return asyncio.run(read_health(state.settings, **workers))[name]


PLACE = 'Traceback\n  File "/project/tasks/items.py", line 12, in work\n    raise\n'


def test_runs_that_fail_are_shown_with_the_newest_error_and_its_place(state: RunState) -> None:
    state.accept(new_run(max_attempts=1), new_run(max_attempts=1), new_run())
    error = RunError("ValueError", "no luck", PLACE)
    with state.claims() as claims:
        first, second, third = sorted(claims.claim(state.take()), key=lambda run: run.seq)
        claims.complete(
            [
                *(
                    replace(failed_attempt(run, 1.0), status="failed", retry_in_s=None, error=error)
                    for run in (first, second)
                ),
                replace(failed_attempt(third, 600), error=error),
            ]
        )
    [failing] = looked(state, "failing")
    assert (failing["failed"], failing["retrying"]) == (2, 1)
    [problem] = failing["problems"]
    assert (problem["name"], problem["severity"]) == ("run_failed", "error")
    assert "2 runs failed and 1 run tried again" in problem["detail"]
    assert "ValueError: no luck, at /project/tasks/items.py:12 in work" in problem["detail"]
    assert problem["remedy"].startswith("triggerkit runs replay --task work --error ValueError")
    # What was replayed is its replay's matter.
    state.connection.execute(
        "INSERT INTO triggerkit.runs (id, task, queue, status, max_attempts, payload, replay_of) "
        "SELECT id || 'r', task, queue, 'queued', 1, payload, id FROM triggerkit.runs "
        "WHERE status = 'failed'"
    )
    [failing] = looked(state, "failing")
    assert (failing["failed"], failing["retrying"]) == (0, 1)


def test_a_queue_that_stands_still_says_what_mends_it(state: RunState) -> None:
    state.accept(new_run())
    [queue] = looked(state, "queues")
    [problem] = queue["problems"]
    assert (problem["name"], problem["remedy"]) == ("queue_without_worker", "triggerkit worker")
    state.connection.execute(
        "INSERT INTO triggerkit.queues (name, paused_at) VALUES ('default', now())"
    )
    [queue] = looked(state, "queues")
    [problem] = queue["problems"]
    remedy = "triggerkit queues resume default"
    assert (problem["name"], problem["remedy"]) == ("queue_paused", remedy)


def test_a_schedule_whose_last_run_failed_is_shown(state: RunState) -> None:
    [handle] = state.accept(new_run(max_attempts=1))
    with state.claims() as claims:
        [run] = claims.claim(state.take())
        claims.complete([replace(failed_attempt(run, 1.0), status="failed", retry_in_s=None)])
    insert_schedule(state.connection, handle.id)
    [schedule] = looked(state, "schedules")
    assert schedule["problems"][0]["remedy"] == f"triggerkit runs replay {handle.id}"


def insert_schedule(connection: psycopg.Connection[Any], run_id: str) -> None:
    connection.execute(
        "INSERT INTO triggerkit.schedules (name, task, queue, max_attempts, cron, timezone, "
        "next_at, last_at, last_run) VALUES ('nightly', 'work', 'default', 1, '0 0 * * *', 'UTC', "
        "now() + interval '1 hour', now(), %s)",
        [run_id],
    )
