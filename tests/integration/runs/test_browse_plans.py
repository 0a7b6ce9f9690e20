"""Looking at runs and stopping queues reads what it shows or changes, however many there are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.integration.run_state import RunState, run_state
from triggerkit.errors import TriggerkitError
from triggerkit.runs.admin import browse, control, queues, reasons, unfinished, workers
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.run import Status
from triggerkit.runs.session import by_index
from triggerkit.settings import Settings

#: Nearly all completed; 10 in each other status among the oldest, and a long tail behind one key.
MANY = """
INSERT INTO triggerkit.runs (id, task, queue, status, blocked, gate, attempt, max_attempts, payload,
    concurrency_key, finished_at, scheduled_at, worker)
SELECT 'run_' || lpad(n::text, 26, '0'), 'work', 'default', s.status, n BETWEEN 50 AND 59,
    CASE WHEN n BETWEEN 60 AND 69 THEN 'held' END, 1, 3, '{}',
    CASE WHEN n BETWEEN 50 AND 59 THEN 'hot' END,
    CASE WHEN s.status IN ('completed', 'failed', 'crashed', 'canceled', 'expired', 'timed_out')
        THEN now() END, now(), 'worker-1'
FROM generate_series(1, 30000) n, LATERAL (SELECT CASE
    WHEN n BETWEEN 40 AND 69 THEN 'queued'
    WHEN n > 150 THEN 'completed'
    ELSE (ARRAY['delayed', 'executing', 'retrying', 'failed', 'crashed', 'canceled', 'expired',
        'timed_out'])[n % 8 + 1] END AS status) s
"""

#: Rows one node of a plan may look at.
ENOUGH = 200


@pytest.fixture
def state(settings: Settings) -> Iterator[RunState]:
    with run_state(settings) as state:
        state.connection.execute(MANY)
        state.connection.execute("VACUUM ANALYZE triggerkit.runs")
        yield state


def rows_read(state: RunState, query: str, parameters: Any, *, is_page: bool = False) -> int:
    """The most rows that one node of the query's plan looked at; it runs and is undone."""
    with state.connection.transaction(force_rollback=True):
        if is_page:
            state.connection.execute(browse.LOOKING.format(ms=10_000).encode())
        explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {query}"
        row = state.connection.execute(explain.encode(), parameters).fetchone()
    assert row is not None
    return max(looked_at(row[0][0]["Plan"]))


def looked_at(node: dict[str, Any]) -> Iterator[int]:
    assert not (node["Node Type"] == "Seq Scan" and node["Relation Name"] == "runs"), node
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    yield int((node["Actual Rows"] + removed) * node["Actual Loops"])
    for child in node.get("Plans", []):
        yield from looked_at(child)


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from nodes(child)


def page(state: RunState, *statuses: Status, after: str = "run_~") -> int:
    query, given = RunFilter(statuses=statuses).ids("r.id < %(after)s", 21)
    return rows_read(state, query, {**given, "after": after}, is_page=True)


@pytest.mark.parametrize(
    "status",
    [
        "delayed", "queued", "executing", "retrying", "failed", "crashed", "canceled", "expired",
        "timed_out", "completed",
    ],
)  # fmt: skip
def test_a_page_of_one_status(state: RunState, status: Status) -> None:
    assert page(state, status) <= ENOUGH


def test_a_page_of_all_and_of_several_statuses(state: RunState) -> None:
    assert page(state) <= ENOUGH
    assert page(state, after=f"run_{15_000:026}") <= ENOUGH
    assert page(state, "failed", "crashed", "queued", "executing") <= ENOUGH


def test_what_is_shown_with_runs(state: RunState) -> None:
    ids = [f"run_{n:026}" for n in range(40, 60)]
    assert rows_read(state, browse._SEVERAL, [ids]) <= ENOUGH
    assert rows_read(state, browse._ATTEMPTS, {"id": ids[0]}) <= ENOUGH
    assert rows_read(state, browse._FOLLOWING, {"id": ids[0], "most": 100}) <= ENOUGH
    assert rows_read(state, reasons._QUEUES, [["default"]]) <= ENOUGH
    assert rows_read(state, reasons._WORKERS, None) <= ENOUGH
    assert rows_read(state, reasons._HOLDERS, [["work"], ["hot"]]) <= ENOUGH
    assert rows_read(state, workers._LIST, None) <= ENOUGH
    for query in unfinished._COUNTS.values():
        assert rows_read(state, query, {"most": 1000}) <= ENOUGH


def test_what_changes_runs(state: RunState) -> None:
    ids = [f"run_{n:026}" for n in range(40, 60)]
    assert rows_read(state, control._CANCEL, [ids]) <= ENOUGH
    assert rows_read(state, queues._READY_TASKS, None) <= ENOUGH
    assert rows_read(state, queues._HOLD, ["work", "default", 10]) <= ENOUGH
    assert rows_read(state, queues._RELEASE, ["default", 10]) <= ENOUGH
    assert rows_read(state, queues._OPEN, ["default"]) <= ENOUGH


def test_a_look_that_takes_too_long_says_how_to_narrow_it(
    state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browse, "LOOK_MS", 20)

    async def looked() -> None:
        dsn = state.settings.state_dsn
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await browse._within_time(connection, "SELECT pg_sleep(10)", {})

    with pytest.raises(TriggerkitError, match="narrow it"):
        asyncio.run(looked())


#: A filter of each field, which fits few of the runs or none.
FILTERS = (
    RunFilter(task="none"),
    RunFilter(task="none", statuses=("completed",)),
    RunFilter(queue="none", statuses=("failed", "crashed")),
    RunFilter(tag="none"),
    RunFilter(consumer="none"),
    RunFilter(table="public.posts"),
    RunFilter(table="public.posts", key="17"),
    RunFilter(error="none"),
    RunFilter(schedule="none"),
    RunFilter(batch="none"),
    RunFilter(text="none"),
)


def found(state: RunState, wanted: RunFilter, **given: Any) -> browse.FoundRuns:
    async def look() -> browse.FoundRuns:
        dsn = by_index(state.settings.state_dsn)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            return await browse.search_runs(connection, wanted, **given)

    return asyncio.run(look())


def test_a_search_that_takes_long_says_how_far_it_looked_and_goes_on_from_there(
    state: RunState,
) -> None:
    oldest = [f"run_{n:026}" for n in (1, 200, 15_000)]
    state.connection.execute(
        "UPDATE triggerkit.runs SET task = 'rare' WHERE id = ANY (%s)", [oldest]
    )
    part = found(state, RunFilter(task="rare"), limit=2, within_ms=0)
    assert part.back_to is not None
    parts, ids = 0, [run["id"] for run in part.runs]
    while part.after is not None:
        part = found(state, RunFilter(task="rare"), limit=2, after=part.after, within_ms=1)
        ids += [run["id"] for run in part.runs]
        parts += 1
    assert parts > 1
    assert ids == sorted(oldest, reverse=True)
    assert part.back_to is None


def test_a_search_in_time_is_as_a_list(state: RunState) -> None:
    for wanted in (RunFilter(), RunFilter(statuses=("failed", "crashed")), RunFilter(task="work")):
        part = found(state, wanted, limit=5, within_ms=10_000)
        rest = found(state, wanted, limit=5, within_ms=10_000, after=part.after)
        ids = [run["id"] for run in (*part.runs, *rest.runs)]
        query, given = wanted.ids("true", 10)
        listed = state.connection.execute(query.encode(), given).fetchall()
        assert ids == [run_id for (run_id,) in listed]
        assert part.back_to is None


@pytest.mark.parametrize("wanted", FILTERS, ids=lambda wanted: "-".join(wanted.as_json()))
def test_a_search_goes_through_an_index_in_its_order(state: RunState, wanted: RunFilter) -> None:
    query, given = wanted.looked_through("r.id < %(after)s", 51)
    dsn = by_index(state.settings.state_dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        explain = f"EXPLAIN (FORMAT JSON) {query}".encode()
        row = connection.execute(explain, {**given, "after": "run_~", "ms": 50}).fetchone()
    assert row is not None
    for node in nodes(row[0][0]["Plan"]):
        assert node["Node Type"] not in ("Seq Scan", "Bitmap Heap Scan"), node
        if node["Node Type"] == "Sort":
            # Of what was found, not of what was looked through.
            assert node["Plans"][0]["Node Type"] in ("Append", "Limit", "Subquery Scan"), node


def test_counting_ends_in_time_and_says_whether_these_are_all(state: RunState) -> None:
    async def count(wanted: RunFilter, most: int, within_ms: int) -> tuple[int, bool]:
        dsn = by_index(state.settings.state_dsn)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            return await browse.count_soon(connection, wanted, most, within_ms=within_ms)

    assert asyncio.run(count(RunFilter(task="none"), 100, 0)) == (0, False)
    assert asyncio.run(count(RunFilter(task="none"), 100, 10_000)) == (0, True)
    assert asyncio.run(count(RunFilter(), 100, 10_000)) == (100, False)
    assert asyncio.run(count(RunFilter(statuses=("queued",)), 100, 10_000)) == (30, True)
    assert asyncio.run(count(RunFilter(statuses=("failed",)), 100, 10_000))[1]
