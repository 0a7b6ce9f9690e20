"""What fails, and what became of it, is found by indexes, however many replays there are."""

from __future__ import annotations

import pytest

from tests.integration.run_state import RunState
from tests.integration.runs.test_run_plans import rows_read
from triggerkit.runs.admin import health, reasons
from triggerkit.why import run_cause

#: Many that completed, of which a third are replays; some that failed, were not replayed, or are
#: tried again; and one that waits for another.
RUNS = """
INSERT INTO triggerkit.runs (id, task, queue, status, attempt, max_attempts, payload, finished_at,
    replay_of, parent_id, error, scheduled_at)
SELECT 'run_' || lpad(n::text, 26, '0'), 'work', 'default', status, 1, 3, '{}',
    CASE WHEN status <> 'retrying' THEN now() END,
    CASE WHEN n % 3 = 0 THEN 'run_' || lpad((n / 3)::text, 26, '0') END,
    CASE WHEN n % 3 = 1 THEN 'run_' || lpad((n / 3)::text, 26, '0') END,
    CASE WHEN status <> 'completed' THEN '{"type": "E", "message": "m", "traceback": "t"}'::jsonb
    END, CASE WHEN status = 'retrying' THEN now() END
FROM generate_series(1, 20000) n, LATERAL (SELECT CASE WHEN n > 19980 THEN 'failed'
    WHEN n > 19960 THEN 'retrying' ELSE 'completed' END AS status) s
"""

#: Rows that a look at forty of them may read.
ENOUGH = 400


@pytest.fixture
def many(state: RunState) -> RunState:
    state.connection.execute(RUNS)
    state.connection.execute("VACUUM ANALYZE triggerkit.runs")
    return state


def test_what_fails(many: RunState) -> None:
    assert rows_read(many, health._FAILING, {"since": "run_0"}) < ENOUGH


def test_what_became_of_runs(many: RunState) -> None:
    ids = many.rows("SELECT id FROM triggerkit.runs WHERE status = 'failed'")
    wanted = {"ids": ids, "tasks": ["work"], "item": "x", "first": min(ids), "most": 20}
    assert rows_read(many, run_cause._OF_ROW, wanted) < ENOUGH


def test_what_a_queue_waits_for(many: RunState) -> None:
    many.connection.execute(
        "INSERT INTO triggerkit.queues (name, concurrency) VALUES ('default', 1);"
        "UPDATE triggerkit.runs SET gate = 'open' WHERE status = 'retrying'"
    )
    assert rows_read(many, reasons._QUEUES, [["default"]]) < ENOUGH
