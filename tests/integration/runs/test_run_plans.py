"""The statements about runs read what they change, however many runs wait or are done."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.integration.run_state import TASK, RunState, new_run, run_state
from triggerkit.runs import claim, keys, schedules
from triggerkit.runs.accept import insert
from triggerkit.runs.keeper import heartbeat, keeper, recover, retention
from triggerkit.runs.keeper.processes import ExecutingProcesses
from triggerkit.runs.run import RunOptions
from triggerkit.settings import Settings

#: Runs in every state: most completed, a backlog of queued ones, a key with a long tail, a queue
#: with a limit at whose gate many wait. Of what has its time, five are due.
MANY = """
INSERT INTO triggerkit.runs (id, task, queue, status, blocked, gate, attempt, max_attempts, payload,
    idempotency_key, concurrency_key, finished_at, worker, expires_at)
SELECT 'run_' || lpad(n::text, 26, '0'), 'work', CASE WHEN n % 5 = 0 THEN 'limited' ELSE 'default'
    END, CASE WHEN n % 3 > 0 THEN 'completed' ELSE 'queued' END, n % 9 = 0,
    CASE WHEN n % 15 = 0 THEN 'held' END, n % 2, 3, '{}',
    'message-' || n, CASE WHEN n % 9 = 0 THEN 'hot' ELSE 'row/' || n END,
    CASE WHEN n % 3 > 0 THEN now() END, 'worker-1', now() + interval '1 hour'
FROM generate_series(1, 20000) n;
INSERT INTO triggerkit.runs (id, task, queue, status, max_attempts, payload, scheduled_at)
SELECT 'run_' || lpad((20000 + n)::text, 26, '0'), 'work', 'default', 'delayed', 3, '{}',
    now() + (n - 5) * interval '1 minute' FROM generate_series(1, 2000) n;
INSERT INTO triggerkit.starts (queue, at)
SELECT 'limited', now() - n * interval '1 minute' FROM generate_series(1, 2000) n;
INSERT INTO triggerkit.attempts (run_id, attempt, status, started_at, finished_at, worker)
SELECT id, 1, 'failed', now(), now(), 'worker-1' FROM triggerkit.runs;
INSERT INTO triggerkit.spans (run_id, attempt, kind, name, started_at)
SELECT id, 1, 'log', 'a line', now() FROM triggerkit.runs;
INSERT INTO triggerkit.queues (name, concurrency, rate_limit, rate_period_s)
VALUES ('limited', 10, 10, 60);
INSERT INTO triggerkit.schedules (name, task, queue, max_attempts, cron, timezone, next_at)
SELECT 'schedule-' || n, 'work', 'default', 3, '* * * * *', 'UTC',
    now() + (n - 5) * interval '1 minute' FROM generate_series(1, 2000) n
"""

#: Tables that no statement reads through.
LARGE = ("runs", "attempts", "spans", "starts", "schedules")

#: Rows a statement about ten runs may look at.
ENOUGH = 150


@pytest.fixture(params=["as it grew", "analyzed"])
def state(settings: Settings, request: pytest.FixtureRequest) -> Iterator[RunState]:
    with run_state(settings) as state:
        state.connection.execute(MANY)
        if request.param == "analyzed":
            for table in LARGE:
                state.connection.execute(f"VACUUM ANALYZE triggerkit.{table}")
        yield state


def rows_read(state: RunState, query: str, parameters: Any) -> int:
    """The most rows that one node of the query's plan looked at; it runs and is undone."""
    with state.connection.transaction(force_rollback=True):
        explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {query}"
        row = state.connection.execute(explain, parameters).fetchone()
    assert row is not None
    return max(looked_at(row[0][0]["Plan"]))


def looked_at(node: dict[str, Any]) -> Iterator[int]:
    assert not (node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE), node
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    yield int((node["Actual Rows"] + removed) * node["Actual Loops"])
    for child in node.get("Plans", []):
        yield from looked_at(child)


def test_accepting_ten_runs(state: RunState) -> None:
    runs = [new_run(f"row/{n}", idempotency_key=f"message-{n}") for n in range(3, 8)]
    runs += [new_run("hot", idempotency_key=f"new-{n}") for n in range(5)]
    assert rows_read(state, insert.INSERT_ONCE, insert.insert_parameters(runs)) <= ENOUGH
    first = [[TASK] * 5, [f"message-{n}" for n in range(5)]]
    assert rows_read(state, insert.FIRST, first) <= ENOUGH


def test_debouncing_a_run(state: RunState) -> None:
    debounced = new_run(delay_s=60.0, options=RunOptions(debounce_key="key", debounce_max_s=90.0))
    for _ in range(2):
        statement = insert.insert_statement([debounced])
        assert rows_read(state, *statement) <= ENOUGH
        state.connection.execute(*statement)


def test_claiming_giving_back_and_completing_ten_runs(state: RunState) -> None:
    ids = [f"run_{n:026}" for n in range(6, 96, 9)]
    assert len(state.rows("SELECT id FROM triggerkit.runs WHERE id = ANY (%s)", ids)) == 10
    claiming = ["worker-1", "version", "claim", ids, [TASK], None, "worker-1"]
    with state.claims("worker-1"):
        pass  # it has a lease now
    assert rows_read(state, claim._CLAIM, claiming) <= ENOUGH
    assert rows_read(state, claim._UNKNOWN, [ids]) <= ENOUGH
    state.connection.execute(claim._CLAIM, claiming)
    claimed = state.rows("SELECT id, attempt FROM triggerkit.runs WHERE claim = 'claim'")
    assert len(claimed) == 8  # the others wait at the gate of their queue
    ids, attempts = [list(column) for column in zip(*claimed, strict=True)]
    assert rows_read(state, claim._GIVEN, ["worker-1", "claim"]) <= ENOUGH
    assert rows_read(state, claim._GIVE_BACK, [ids, attempts, "worker-1"]) <= ENOUGH
    eight = [[value] * 8 for value in ("completed", "1", None, None, 0)]
    outcomes = [ids, attempts, *eight, "worker-1"]
    assert rows_read(state, claim._COMPLETE, outcomes) <= ENOUGH
    state.connection.execute(claim._COMPLETE, outcomes)
    assert set(state.rows("SELECT status FROM triggerkit.runs WHERE id = ANY (%s)", ids)) == {
        "completed"
    }


def test_letting_the_next_of_a_key_go_on(state: RunState) -> None:
    ten = [[TASK] * 10, ["hot", *(f"row/{n}" for n in range(9))]]
    assert rows_read(state, keys.UNBLOCK, ten) <= ENOUGH


def test_letting_runs_through_a_gate_at_which_many_wait(state: RunState) -> None:
    assert rows_read(state, keys.ADMIT, [keys.MOST_ADMITTED, ["limited"]]) <= ENOUGH
    admitted = state.connection.execute(keys.ADMIT, [keys.MOST_ADMITTED, ["limited"]]).fetchall()
    assert len(admitted) == 10
    assert rows_read(state, keys.ADMIT, [keys.MOST_ADMITTED, ["limited"]]) <= ENOUGH


def test_a_look(state: RunState) -> None:
    assert rows_read(state, keeper._LOOK, ExecutingProcesses().rows()) <= ENOUGH
    assert (
        rows_read(state, heartbeat._BEAT, {**ExecutingProcesses().rows(), "leads": False}) <= ENOUGH
    )


def test_what_a_look_finds(state: RunState) -> None:
    ids = [f"run_{n:026}" for n in range(3, 33, 3)]
    assert rows_read(state, recover._PROMOTE, [10]) <= ENOUGH
    assert rows_read(state, recover._OVERDUE, [10]) <= ENOUGH
    assert rows_read(state, recover._EXPIRE, [ids]) <= ENOUGH
    assert rows_read(state, recover._ABANDONED, [["worker-1"], 10]) <= ENOUGH
    returned = {"ids": ids, "dead": ["worker-1"], "most": 3, "most_suspected": 10}
    assert rows_read(state, recover._RETURN, returned) <= ENOUGH
    assert rows_read(state, recover._READY, [ids]) <= ENOUGH
    strays = {"task": TASK, "first": recover._LAST_RANK, "limit": 10, "stray_after_us": -1}
    assert rows_read(state, recover._STRAYS, strays) <= ENOUGH
    assert rows_read(state, recover._STRAYS, {**strays, "first": 0}) <= ENOUGH


def test_removing_the_ten_oldest_finished_runs(state: RunState) -> None:
    before = f"run_{15_000:026}"
    oldest = {"before": before, "keep": timedelta(0), "limit": 10, "after": ""}
    assert rows_read(state, retention._OLD, oldest) <= ENOUGH
    ids = [f"run_{n:026}" for n in range(10)]
    assert rows_read(state, retention._REMOVE, {**oldest, "ids": ids}) <= ENOUGH
    assert rows_read(state, retention._REMOVE_LINES, [ids, 10]) <= ENOUGH


def test_finding_the_schedules_that_are_due(state: RunState) -> None:
    assert rows_read(state, schedules._DUE, [[]]) <= ENOUGH
