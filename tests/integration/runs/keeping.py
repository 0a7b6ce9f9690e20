"""A keeper whose looks a test makes, and runs for it to look after."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

from tests.integration.run_state import RunState
from triggerkit.runs.keeper.keeper import Keeper
from triggerkit.runs.keeper.liveness import FailureDetector
from triggerkit.runs.keeper.processes import ExecutingProcesses
from triggerkit.runs.keeper.retention import Retention
from triggerkit.runs.run import NewRun
from triggerkit.runs.session import by_index
from triggerkit.runs.transport.open import open_transport
from triggerkit.settings import Settings
from triggerkit.state.connect import pinned


def new_keeper(settings: Settings, state: RunState, **given: Any) -> Keeper:
    """A keeper without processes."""
    dsn = pinned(by_index(settings.state_dsn), "triggerkit keeper")
    transport = open_transport(settings, state.namespace)
    retention = Retention(timedelta(days=7))
    return Keeper(dsn, transport, ExecutingProcesses(), threading.Event(), retention, **given)


def tick(keeper: Keeper, state: RunState, times: int = 1) -> float:
    """Look `times` times as one observer; returns the seconds until the next look."""
    detector = FailureDetector(keeper.lease_s)
    return [keeper.tick(state.connection, detector) for _ in range(times)][-1]


def executing(state: RunState, run: NewRun, worker: str, beat: int | None = 1) -> None:
    """Have `run` executed by `worker`, which has a lease unless `beat` is None."""
    with state.claims(worker) as claims:
        assert [claimed.id for claimed in claims.claim([run.id])] == [run.id]
    state.take()
    if beat is None:
        state.connection.execute("DELETE FROM triggerkit.workers WHERE id = %s", [worker])
    else:
        state.connection.execute(
            "UPDATE triggerkit.workers SET beat = %s WHERE id = %s", [beat, worker]
        )


#: Waiting runs as a large backlog has them.
BACKLOG = """
INSERT INTO triggerkit.runs (id, task, queue, status, max_attempts, payload, rank)
SELECT 'run_' || lpad(n::text, 26, '0'), 'work', 'default', 'queued', 3, '{}',
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 60000000 + n
FROM generate_series(1, %s) n
"""
