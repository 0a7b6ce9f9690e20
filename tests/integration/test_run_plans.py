"""The statements about runs read what they change, however many runs wait or are done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.run_state import QUEUE, TASK, RunState, new_run, run_state
from triggerkit.runs import accept, claim, keeper, keys, recover
from triggerkit.settings import Settings

#: Runs in every state: most completed, a backlog of queued ones, a key with a long tail.
MANY = """
INSERT INTO triggerkit.runs (id, task, queue, status, blocked, attempt, max_attempts, payload,
    idempotency_key, concurrency_key, finished_at, worker)
SELECT 'run_' || lpad(n::text, 26, '0'), 'work', 'default',
    CASE WHEN n % 3 > 0 THEN 'completed' ELSE 'queued' END, n % 9 = 0, 1, 3, '{}',
    'message-' || n, CASE WHEN n % 9 = 0 THEN 'hot' ELSE 'row/' || n END,
    CASE WHEN n % 3 > 0 THEN now() END, 'worker-1'
FROM generate_series(1, 20000) n
"""

#: Rows a statement about ten runs may look at.
ENOUGH = 150


@pytest.fixture(params=["as it grew", "analyzed"])
def state(settings: Settings, request: pytest.FixtureRequest) -> Iterator[RunState]:
    with run_state(settings) as state:
        state.connection.execute(MANY)
        if request.param == "analyzed":
            state.connection.execute("VACUUM ANALYZE triggerkit.runs")
        yield state


def rows_read(state: RunState, query: str, parameters: Any) -> int:
    """The most rows that one node of the query's plan looked at; it runs and is undone."""
    with state.connection.transaction(force_rollback=True):
        explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {query}"
        row = state.connection.execute(explain, parameters).fetchone()
    assert row is not None
    return max(looked_at(row[0][0]["Plan"]))


def looked_at(node: dict[str, Any]) -> Iterator[int]:
    assert not (node["Node Type"] == "Seq Scan" and node["Relation Name"] == "runs"), node
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    yield int((node["Actual Rows"] + removed) * node["Actual Loops"])
    for child in node.get("Plans", []):
        yield from looked_at(child)


def test_accepting_ten_runs(state: RunState) -> None:
    runs = [new_run(f"row/{n}", idempotency_key=f"message-{n}") for n in range(3, 8)]
    runs += [new_run("hot", idempotency_key=f"new-{n}") for n in range(5)]
    assert rows_read(state, accept.INSERT, accept.insert_parameters(runs)) <= ENOUGH
    first = [[TASK] * 5, [f"message-{n}" for n in range(5)]]
    assert rows_read(state, accept._FIRST, first) <= ENOUGH


def test_claiming_and_completing_ten_runs(state: RunState) -> None:
    ids = [f"run_{n:026}" for n in range(3, 33, 3)]
    assert rows_read(state, claim._CLAIM, ["worker-1", "c", ids, [TASK]]) <= ENOUGH
    assert rows_read(state, claim._UNKNOWN, [ids]) <= ENOUGH
    state.connection.execute(claim._CLAIM, ["worker-1", "c", ids, [TASK]])
    none = [None] * 10
    outcomes = [ids, [2] * 10, ["completed"] * 10, ["1"] * 10, none, none, ids, "worker-1"]
    assert rows_read(state, claim._COMPLETE, outcomes) <= ENOUGH


def test_letting_the_next_of_a_key_go_on(state: RunState) -> None:
    ten = [[TASK] * 10, ["hot", *(f"row/{n}" for n in range(9))]]
    assert rows_read(state, keys.UNBLOCK, ten) <= ENOUGH


def test_a_look_and_what_it_finds(state: RunState) -> None:
    assert rows_read(state, keeper._LOOK, [1.0]) <= ENOUGH
    assert rows_read(state, recover._PROMOTE, [10]) <= ENOUGH
    assert rows_read(state, recover._RETURN, {"dead": ["worker-1"], "most": 3}) <= ENOUGH
    assert rows_read(state, recover._ABANDONED_KEYS, [["worker-1"]]) <= ENOUGH
    head = [f"run_{n:026}" for n in range(3, 33, 3)]
    strays = {"queue": QUEUE, "head": head, "limit": 10, "settling_s": 1.0}
    assert rows_read(state, recover._STRAYS, strays) <= ENOUGH
