"""How many connections a worker has, as its documentation says."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from tests.integration.run_state import RunState
from tests.integration.worker_thread import working
from triggerkit import current_run, task

#: Of one process that executes runs, beside its pool; and of a worker's parent.
OWN = 6
PARENTS = 4

_COUNT = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'triggerkit%'
"""


@pytest.mark.parametrize("size", [1, 3])
def test_a_busy_worker_has_no_more_connections_than_documented(
    triggers: RunState, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setenv("TRIGGERKIT_POOL_SIZE", str(size))
    most: list[int] = []

    def look() -> None:
        with psycopg.connect(triggers.settings.state_dsn) as outside:
            row = outside.execute(_COUNT).fetchone()
            assert row is not None
            most.append(row[0])

    @task(retry=1)
    def child(given: dict[str, int]) -> None:
        print("a line")
        current_run().set_metadata(n=given["n"])
        look()

    @task(retry=1)
    async def parent() -> None:
        waits: list[Any] = [child.atrigger_and_wait({"n": n}) for n in range(30)]
        await asyncio.gather(*waits)

    handle = parent.trigger()
    with working(triggers, child, parent):
        triggers.wait_for_status("completed", handle.id)
    assert len(most) == 30
    assert max(most) <= OWN + PARENTS + size
