"""Several runs of one key at a time: as many as their task allows, never more, in order."""

from __future__ import annotations

import asyncio
import random

import psycopg
import pytest

from tests.integration.run_state import RunState, completed, failed_attempt, new_run
from triggerkit.runs.accept.within import accept_within
from triggerkit.runs.admin.browse import list_runs
from triggerkit.runs.keeper.recover import admit_pending, promote, return_runs
from triggerkit.runs.run import NewRun, RunOptions
from triggerkit.state.connect import connect

KEY = "account 7"

READY = "SELECT id FROM triggerkit.runs WHERE status = 'queued' AND NOT blocked ORDER BY rank"


def run_of(per_key: int) -> NewRun:
    return new_run(KEY, options=RunOptions(concurrency_per_key=per_key))


def waiting(state: RunState) -> list[str]:
    return state.rows("SELECT id FROM triggerkit.runs WHERE blocked ORDER BY seq")


def test_as_many_go_on_as_the_key_allows_and_each_end_lets_the_next_one_go(
    state: RunState,
) -> None:
    runs = [run_of(3) for _ in range(6)]
    state.accept(*runs[:2])
    state.accept(*runs[2:])
    ids = [run.id for run in runs]
    assert state.take() == ids[:3]
    with state.claims() as claims:
        claimed = claims.claim(ids)
        assert [run.id for run in claimed] == ids[:3]
        assert [ready.id for ready in claims.complete([completed(claimed[1])])] == ids[3:4]
        others = [completed(claimed[0]), completed(claimed[2])]
        ready = sorted(claims.complete(others), key=lambda run: run.rank)
        assert [run.id for run in ready] == ids[4:]
        assert [run.id for run in claims.claim(ids)] == ids[3:]
    assert state.broken_keys() == []


def test_one_that_waits_for_its_retry_keeps_its_place(state: RunState) -> None:
    runs = [run_of(2) for _ in range(4)]
    state.accept(*runs)
    with state.claims() as claims:
        first, second = claims.claim(state.take())
        assert claims.complete([failed_attempt(first, 60.0)]) == []
        assert [run.id for run in claims.complete([completed(second)])] == [runs[2].id]
    assert waiting(state) == [runs[3].id]


def test_a_lower_limit_of_a_new_version_holds_once_what_was_there_has_ended(
    state: RunState,
) -> None:
    before, after = [run_of(3) for _ in range(4)], [run_of(1) for _ in range(2)]
    state.accept(*before, *after)
    with state.claims() as claims:
        first = claims.claim(state.take())
        # The fourth goes on, and nothing beside it: the limit of those behind it is lower.
        ready = claims.complete([completed(run) for run in first])
        assert [run.id for run in ready] == [before[3].id]
        [last] = claims.claim([before[3].id])
        assert [run.id for run in claims.complete([completed(last)])] == [after[0].id]
    assert waiting(state) == [after[1].id]


def test_a_higher_limit_of_a_new_version_passes_nothing_that_was_there(state: RunState) -> None:
    before, after = [run_of(1) for _ in range(2)], [run_of(3) for _ in range(2)]
    state.accept(*before)
    state.accept(*after)
    assert state.pushed() == [before[0].id]
    with state.claims() as claims:
        claims.complete([completed(run) for run in claims.claim(state.take())])
        [second] = claims.claim([run.id for run in (*before, *after)])
        assert second.id == before[1].id
        ready = claims.complete([completed(second)])
    assert sorted(run.id for run in ready) == sorted(run.id for run in after)


def test_runs_of_a_callers_transaction_take_their_places_once_it_commits(state: RunState) -> None:
    runs = [run_of(2) for _ in range(3)]
    with psycopg.connect(state.settings.state_dsn) as connection:
        accept_within(connection, runs)
    assert [run.id for run in admit_pending(state.connection)] == [runs[0].id, runs[1].id]
    assert state.broken_keys() == []


def test_a_reason_says_by_how_many_the_key_is_held(state: RunState) -> None:
    runs = [run_of(3) for _ in range(4)]
    state.accept(*runs)

    async def reason() -> str | None:
        async with await connect(state.settings.state_dsn, "test") as connection:
            found, _ = await list_runs(connection)
        [last] = [run["reason"] for run in found if run["id"] == runs[3].id]
        return str(last)

    assert asyncio.run(reason()) == f"its key is held by {runs[0].id} (queued) and 2 more"


@pytest.mark.parametrize("per_key", [1, 2, 5])
def test_whatever_happens_to_runs_exactly_the_first_ones_go_on(
    state: RunState, per_key: int
) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    rng = random.Random(seed)
    for number in range(30):
        if rng.random() < 0.4:
            state.accept(*(run_of(per_key) for _ in range(rng.randint(1, 4))))
        with state.claims(f"worker-{number}") as claims:
            claimed = claims.claim(state.rows(READY))
            assert len(claimed) <= per_key
            if rng.random() < 0.2:
                return_runs(state.connection, [f"worker-{number}"])
            else:
                claims.complete(
                    [
                        failed_attempt(run, 0.0) if rng.random() < 0.2 else completed(run)
                        for run in claimed
                    ]
                )
        promote(state.connection)
        assert state.broken_keys() == []
