"""`triggerkit status` sees the tasks that wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

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
