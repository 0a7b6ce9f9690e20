"""The backlog: how many runs wait for a worker, since when, and what it costs to ask."""

from __future__ import annotations

import asyncio
import re

import psycopg
import pytest

from tests.integration.run_state import RunState
from triggerkit.runs.admin.backlog import (
    _BACKLOG,
    LEAST_COUNTED,
    MOST_COUNTED,
    QueueBacklog,
    backlog,
)
from triggerkit.runs.session import by_index
from triggerkit.state.connect import connect

#: Ready runs of several tasks, made at once; the rank is when each became ready.
FILL = """
INSERT INTO triggerkit.runs (id, task, queue, status, max_attempts, payload, rank, gate, blocked)
SELECT 'run_' || %(name)s || n, %(task)s, %(queue)s, %(status)s, 1, '{}',
    (extract(epoch FROM now()) * 1000000)::bigint - n * 1000000::bigint, %(gate)s, %(blocked)s
FROM generate_series(1, %(count)s) n
"""


def fill(
    state: RunState,
    count: int,
    task: str,
    queue: str,
    status: str = "queued",
    gate: str | None = None,
    *,
    blocked: bool = False,
) -> None:
    given = {
        "name": f"{task}{status}{gate}{blocked}",
        "task": task,
        "queue": queue,
        "status": status,
        "count": count,
        "gate": gate,
        "blocked": blocked,
    }
    state.connection.execute(FILL, given)


def asked(state: RunState) -> dict[str, QueueBacklog]:
    async def read() -> list[QueueBacklog]:
        async with await connect(by_index(state.settings.state_dsn), "test") as connection:
            return await backlog(connection)

    return {queue.queue: queue for queue in asyncio.run(read())}


def test_nothing_waits(state: RunState) -> None:
    assert asked(state) == {}


def test_what_waits_for_a_worker_is_counted_and_nothing_else(state: RunState) -> None:
    fill(state, 30, "a", "fast")
    fill(state, 12, "b", "fast")
    fill(state, 5, "c", "slow")
    fill(state, 7, "c", "slow", "executing")
    fill(state, 7, "c", "slow", gate="held")
    fill(state, 7, "c", "slow", blocked=True)
    found = asked(state)
    assert (found["fast"].runs, found["fast"].is_at_least) == (42, False)
    assert 30 <= found["fast"].oldest_seconds < 60
    assert (found["slow"].runs, found["slow"].is_at_least) == (5, False)
    assert 5 <= found["slow"].oldest_seconds < 35


def test_more_than_is_counted_is_said_to_be_more(state: RunState) -> None:
    fill(state, MOST_COUNTED + 10, "a", "fast")
    fill(state, 3, "b", "slow")
    found = asked(state)
    assert found["fast"].is_at_least
    assert LEAST_COUNTED <= found["fast"].runs <= MOST_COUNTED
    assert found["slow"] == QueueBacklog("slow", 3, False, found["slow"].oldest_seconds)


def test_a_task_in_several_queues_is_said_to_have_more(state: RunState) -> None:
    for queue in ("fast", "slow"):
        state.connection.execute(
            FILL,
            {"name": queue, "task": "a", "queue": queue, "status": "queued", "gate": None}
            | {"count": MOST_COUNTED, "blocked": False},
        )
    found = asked(state)
    assert found["fast"].is_at_least
    assert found["slow"].is_at_least


def pages(state: RunState) -> int:
    """The pages that the query touches."""
    with psycopg.connect(by_index(state.settings.state_dsn)) as connection:
        connection.execute("SET search_path = pg_catalog")
        given = {"most": MOST_COUNTED, "least": LEAST_COUNTED}
        plan = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS) {_BACKLOG}", given).fetchall()
    told = [re.search(r"Buffers: shared hit=(\d+)(?: read=(\d+))?", line) for (line,) in plan]
    first = next(found for found in told if found is not None)
    return int(first[1]) + int(first[2] or 0)


@pytest.mark.timeout(300)
def test_it_reads_as_much_of_many_as_of_few(state: RunState) -> None:
    fill(state, MOST_COUNTED * 2, "a", "fast")
    few = pages(state)
    fill(state, 60_000, "b", "fast")
    fill(state, 60_000, "c", "other")
    state.connection.execute("ANALYZE triggerkit.runs")
    assert pages(state) < few * 2
