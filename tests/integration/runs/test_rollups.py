"""Runs rolled up by when they were accepted, as the keeper does once a minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.integration.run_state import RunState, completed, new_run
from triggerkit.runs.keeper.rollups import ALL, MINUTE_S, floor_to, percentile_s, roll_up, step_of
from triggerkit.runs.run import Outcome, RunError, first_run_id_at


def accepted_at(state: RunState, run_id: str, moment: datetime) -> str:
    """Have a run accepted at another time, which its id tells."""
    earlier = first_run_id_at(moment.timestamp())
    state.connection.execute(
        "UPDATE triggerkit.runs SET id = %(new)s, created_at = %(at)s, "
        "started_at = %(at)s + (started_at - created_at), "
        "rank = (extract(epoch FROM %(at)s) * 1000000)::bigint, "
        "finished_at = CASE WHEN finished_at IS NOT NULL THEN %(at)s + interval '2 seconds' END "
        "WHERE id = %(old)s",
        {"new": earlier, "old": run_id, "at": moment},
    )
    return earlier


def step(state: RunState, task: str, at: datetime, step_s: int = MINUTE_S) -> Any:
    """A step as it is stored."""
    [row] = state.connection.execute(
        "SELECT accepted, completed, failed, open, latencies, waits FROM triggerkit.run_rollups "
        "WHERE step_s = %s AND task = %s AND at = %s",
        [step_s, task, at],
    ).fetchall()
    return step_of(row)


def test_a_minute_counts_what_was_accepted_in_it_and_what_became_of_it(state: RunState) -> None:
    minute = floor_to(datetime.now(UTC), MINUTE_S) - timedelta(minutes=5)
    refs = state.accept(*(new_run() for _ in range(3)))
    with state.claims() as claims:
        [first, second] = claims.claim([ref.id for ref in refs[:2]])
        error = RunError("ValueError", "no luck", "")
        claims.complete([completed(first), Outcome(second, "failed", error=error)])
    for second_of, ref in enumerate(refs):
        accepted_at(state, ref.id, minute + timedelta(seconds=second_of))
    done = roll_up(state.connection)
    assert minute in done
    counted = step(state, "work", minute)
    assert (counted.accepted, counted.completed, counted.failed, counted.open) == (3, 1, 1, 1)
    assert 2.0 <= (percentile_s(counted.latencies, 0.5) or 0) < 2.6
    assert sum(counted.waits.values()) == 2
    assert step(state, ALL, minute) == counted
    quarter = floor_to(minute, 900)
    assert step(state, "work", quarter, 900).accepted == 3
    # Rolling up again counts nothing twice.
    roll_up(state.connection)
    assert step(state, "work", quarter, 900).accepted == 3


def test_a_minute_is_made_anew_until_none_of_its_runs_is_open(state: RunState) -> None:
    minute = floor_to(datetime.now(UTC), MINUTE_S) - timedelta(minutes=5)
    [ref] = state.accept(new_run())
    run_id = accepted_at(state, ref.id, minute)
    roll_up(state.connection)
    assert step(state, "work", minute).open == 1
    state.connection.execute(
        "UPDATE triggerkit.runs SET status = 'crashed', finished_at = now() WHERE id = %s", [run_id]
    )
    again = "UPDATE triggerkit.run_rollups SET rolled_at = rolled_at - interval '10 minutes'"
    state.connection.execute(again)
    assert minute in roll_up(state.connection)
    counted = step(state, "work", minute)
    assert (counted.open, counted.failed) == (0, 1)
    state.connection.execute(again)
    assert minute not in roll_up(state.connection)


def test_old_steps_are_forgotten_and_a_long_rest_is_made_up_for_in_parts(state: RunState) -> None:
    roll_up(state.connection)
    state.connection.execute(
        "UPDATE triggerkit.run_rollups SET at = at - interval '3 days' WHERE step_s = 60"
    )
    made = roll_up(state.connection)
    assert len(made) == 120
    oldest = "SELECT min(at) > now() - interval '27 hours' FROM triggerkit.run_rollups"
    assert state.rows(f"{oldest} WHERE step_s = 60") == [True]
    assert roll_up(state.connection)[0] == made[-1]
