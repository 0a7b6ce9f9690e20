"""Claiming and completing: each attempt once, each key one at a time, in order of arrival."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest

from tests.integration.run_state import (
    RunState,
    completed,
    failed_attempt,
    ids_of,
    new_run,
    run_state,
)
from triggerkit.runs.keeper.recover import promote
from triggerkit.runs.run import ClaimedRun, Outcome, RunError, new_run_id

#: Runs that can be claimed or will be.
READY = "SELECT id FROM triggerkit.runs WHERE finished_at IS NULL AND NOT blocked"


def test_a_claim_gives_the_run_as_it_was_accepted(state: RunState) -> None:
    run = new_run("row", source={"key": "1"}, payload=b'{"text":"a\\u0000b"}')
    state.accept(run)
    with state.claims() as claims:
        [claimed] = claims.claim([run.id])
    assert (claimed.id, claimed.attempt, claimed.max_attempts) == (run.id, 1, 3)
    assert (claimed.payload.encode(), claimed.source) == (run.payload, run.source)
    row = state.run(run.id)
    assert (row["status"], row["worker"], row["attempt"]) == ("executing", "worker-1", 1)


def test_runs_are_claimed_in_the_order_in_which_they_were_taken(state: RunState) -> None:
    runs = [new_run() for _ in range(20)]
    state.accept(*runs)
    taken = random.sample([run.id for run in runs], len(runs))
    with state.claims() as claims:
        assert [run.id for run in claims.claim(taken)] == taken


def test_a_second_claim_of_a_run_does_nothing(state: RunState) -> None:
    run = new_run()
    state.accept(run)
    with state.claims("worker-1") as first, state.claims("worker-2") as second:
        assert len(first.claim([run.id, run.id])) == 1
        assert second.claim([run.id]) == []
    assert state.run(run.id)["worker"] == "worker-1"


def test_workers_that_claim_the_same_ids_at_once_share_them(state: RunState) -> None:
    runs = [new_run() for _ in range(300)]
    state.accept(*runs)
    taken: list[str] = []
    start = threading.Barrier(4)

    def work(number: int) -> None:
        ids = random.Random(number).sample([run.id for run in runs], len(runs))
        with state.claims(f"worker-{number}") as claims:
            start.wait()
            for at in range(0, len(ids), 30):
                taken.extend(run.id for run in claims.claim(ids[at : at + 30]))

    in_threads(work, 4)
    assert sorted(taken) == sorted(run.id for run in runs)


def test_only_known_tasks_are_claimed(state: RunState) -> None:
    known, unknown = new_run(), new_run(task="unknown")
    state.accept(known, unknown)
    with state.claims() as claims:
        assert [run.id for run in claims.claim([known.id, unknown.id])] == [known.id]
    assert state.run(unknown.id)["status"] == "queued"


def test_ids_that_are_no_runs_are_dropped_with_a_warning(
    state: RunState, caplog: pytest.LogCaptureFixture
) -> None:
    run, unknown = new_run(), new_run_id()
    state.accept(run)
    with state.claims() as claims:
        assert [claimed.id for claimed in claims.claim([unknown, run.id])] == [run.id]
        assert unknown in caplog.text
        caplog.clear()
        assert claims.claim([run.id]) == []
    assert caplog.text == ""


def test_a_blocked_or_waiting_run_is_not_claimed(state: RunState) -> None:
    first, blocked, delayed = new_run("row"), new_run("row"), new_run(delay_s=60.0)
    state.accept(first, blocked, delayed)
    with state.claims() as claims:
        [claimed] = claims.claim([blocked.id, delayed.id, first.id])
    assert claimed.id == first.id


def test_a_completion_writes_the_output_and_the_attempt(state: RunState) -> None:
    run = new_run()
    state.accept(run)
    with state.claims() as claims:
        [claimed] = claims.claim([run.id])
        assert claims.complete([completed(claimed, output=b'{"n":"\\u0000"}')]) == []
    row = state.run(run.id)
    assert (row["status"], row["output"]) == ("completed", '{"n":"\\u0000"}')
    assert datetime.fromisoformat(row["finished_at"]) >= datetime.fromisoformat(row["started_at"])
    assert state.attempts(run.id) == [(1, "completed", "worker-1")]


def test_a_failed_attempt_is_scheduled_and_keeps_its_key(state: RunState) -> None:
    run, behind = new_run("row"), new_run("row")
    state.accept(run, behind)
    with state.claims() as claims:
        [claimed] = claims.claim(state.take())
        assert claims.complete([failed_attempt(claimed, retry_in_s=60.0)]) == []
    row = state.run(run.id)
    assert (row["status"], row["finished_at"], row["worker"]) == ("retrying", None, None)
    assert row["error"]["message"] == "no luck"
    waits = "SELECT extract(epoch FROM scheduled_at - now())::float FROM triggerkit.runs"
    assert 50 < state.rows(f"{waits} WHERE id = %s", run.id)[0] < 61
    assert state.run(behind.id)["blocked"]


def test_the_end_of_a_run_lets_the_next_of_its_key_go_on(state: RunState) -> None:
    first, second, third = new_run("row"), new_run("row"), new_run("row")
    state.accept(first, second, third)
    error = RunError("ValueError", "no", "")
    with state.claims() as claims:
        [claimed] = claims.claim([first.id])
        assert ids_of(claims.complete([completed(claimed)])) == [second.id]
        [claimed] = claims.claim([second.id])
        assert ids_of(claims.complete([Outcome(claimed, "failed", error=error)])) == [third.id]
    assert state.broken_keys() == []


def test_a_late_worker_cannot_complete_an_attempt_that_was_given_to_another(
    state: RunState, caplog: pytest.LogCaptureFixture
) -> None:
    run, behind = new_run("row"), new_run("row")
    state.accept(run, behind)
    with state.claims("late") as late, state.claims("next") as other:
        [stale] = late.claim([run.id])
        state.connection.execute("UPDATE triggerkit.runs SET status = 'queued' WHERE attempt = 1")
        [current] = other.claim([run.id])
        spawned = (new_run("other"),)
        assert late.complete([completed(stale, spawned=spawned)]) == []
        assert "too late" in caplog.text
        assert state.statuses() == ["executing", "queued"]
        assert ids_of(other.complete([completed(current)])) == [behind.id]
        assert other.complete([completed(current)]) == []
    assert state.attempts(run.id) == [(2, "completed", "next")]


def test_runs_of_failed_items_are_made_with_the_completion_and_hold_their_rows(
    state: RunState,
) -> None:
    batch, later = (new_run("consumer/0", items=2, payload=b'{"data":[]}') for _ in range(2))
    state.accept(batch, later)
    error = RunError("ValueError", "no", "")
    item = new_run("row/1", items=1, item_key="1", attempt=1, error=error, delay_s=60.0)
    behind = new_run("row/1", items=1, item_key="1")
    with state.claims() as claims:
        [claimed] = claims.claim([batch.id])
        assert claimed.held_rows == []
        ready = claims.complete([completed(claimed, spawned=(item, behind))])
        assert ids_of(ready) == [later.id]
        assert (state.run(item.id)["status"], state.run(item.id)["attempt"]) == ("retrying", 1)
        assert state.run(behind.id)["blocked"]
        [claimed] = claims.claim([later.id])
        assert set(claimed.held_rows) == {"1"}
    assert state.broken_keys() == []


def test_keys_stay_whole_while_many_accept_claim_and_complete_at_once(state: RunState) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    keys = [f"row/{n}" for n in range(5)]
    accepted = threading.Event()
    ended: list[tuple[str | None, int]] = []
    overlaps: list[object] = []
    held: set[str | None] = set()

    def accept(number: int) -> None:
        rng = random.Random(seed + number)
        for _ in range(10):
            state.accept(*(new_run(rng.choice(keys)) for _ in range(4)))

    def work(number: int) -> None:
        rng = random.Random(seed - number - 1)
        with run_state(state.settings) as own, own.claims(f"worker-{number}") as claims:
            while (ids := own.rows(READY)) or not accepted.is_set() or held:
                runs = claims.claim(rng.sample(ids, min(3, len(ids))))
                overlaps.extend(run.id for run in runs if run.concurrency_key in held)
                held.update(run.concurrency_key for run in runs)
                overlaps.extend(own.broken_keys())
                outcomes = [outcome(run, rng) for run in runs]
                ended.extend((o.run.concurrency_key, o.run.seq) for o in outcomes if o.output)
                held.difference_update(run.concurrency_key for run in runs)
                claims.complete(outcomes)
                promote(own.connection)

    def outcome(run: ClaimedRun, rng: random.Random) -> Outcome:
        again = run.attempt < run.max_attempts and rng.random() < 0.3
        return failed_attempt(run, retry_in_s=0.0) if again else completed(run)

    workers = threading.Thread(target=in_threads, args=[work, 3])
    workers.start()
    in_threads(accept, 3)
    accepted.set()
    workers.join()
    assert overlaps == []
    assert set(state.statuses()) == {"completed"}
    for key in keys:
        order = [seq for ended_key, seq in ended if ended_key == key]
        assert order == sorted(order)


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Call `work` with each number below `count`, all at once; what one raises is raised."""
    with ThreadPoolExecutor(count) as threads:
        for future in [threads.submit(work, number) for number in range(count)]:
            future.result()
