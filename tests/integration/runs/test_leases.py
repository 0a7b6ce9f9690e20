"""Leases: nothing that takes long or fails costs a worker that lives its runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from tests.faults.rig.proxy import Proxy
from tests.integration.run_state import TASK, RunState, new_run
from triggerkit.runs.keeper import heartbeat
from triggerkit.runs.keeper.heartbeat import WorkerHeartbeat
from triggerkit.runs.keeper.keeper import Keeper
from triggerkit.runs.keeper.processes import ExecutingProcess, ExecutingProcesses
from triggerkit.runs.keeper.retention import Retention
from triggerkit.runs.run import first_run_id_at
from triggerkit.runs.schedules import DueSchedules
from triggerkit.runs.session import by_index
from triggerkit.runs.transport.open import open_transport
from triggerkit.settings import Settings
from triggerkit.state.connect import pinned

#: Statements of the keeper's that wait for a lock.
WAITING = """
SELECT query FROM pg_stat_activity WHERE datname = current_database()
    AND application_name = 'triggerkit keeper' AND wait_event_type = 'Lock'
"""

BEATS = "SELECT beat FROM triggerkit.workers WHERE id = 'worker'"


@contextmanager
def keeping(
    state: RunState, lease_s: float = 2.0, settings: Settings | None = None
) -> Iterator[Keeper]:
    """The keeper of a worker with one process."""
    processes = ExecutingProcesses()
    processes.join(ExecutingProcess("worker", 1, [], 1, 1, lambda _: None))
    keeper = Keeper(
        pinned(by_index((settings or state.settings).state_dsn), "triggerkit keeper"),
        open_transport(state.settings, state.namespace),
        processes,
        threading.Event(),
        Retention(timedelta(days=7)),
        lease_s,
    )
    thread = threading.Thread(target=keeper.run)
    thread.start()
    try:
        assert processes.wait_until_held("worker", 10)
        yield keeper
    finally:
        keeper.stop.set()
        processes.wake()
        thread.join()


def beats_go_on(state: RunState) -> None:
    """Wait for three more heartbeats of the worker."""
    [before] = state.rows(BEATS)
    state.wait_for(lambda: state.rows(BEATS)[0] >= before + 3)


def execute_here(state: RunState) -> str:
    """A run that the worker executes."""
    [handle] = state.accept(new_run())
    with state.claims("worker") as claims:
        assert claims.claim([handle.id])
    state.take()
    return handle.id


def other_connection(state: RunState) -> psycopg.Connection[Any]:
    return psycopg.connect(state.settings.state_dsn)


def test_retention_that_takes_long_costs_no_lease_and_holds_up_nothing(state: RunState) -> None:
    old = first_run_id_at(1000)
    state.accept(new_run(id=old))
    state.take()
    state.connection.execute(
        "UPDATE triggerkit.runs SET status = 'completed', finished_at = '1970-01-02'"
    )
    state.connection.execute(
        "INSERT INTO triggerkit.spans (run_id, attempt, kind, name, started_at)"
        " VALUES (%s, 1, 'log', 'a line', now())",
        [old],
    )
    with other_connection(state) as other:
        other.execute("SELECT FROM triggerkit.spans FOR UPDATE")
        with keeping(state):
            executing = execute_here(state)
            state.wait_for(lambda: "spans" in "".join(state.rows(WAITING)))
            [delayed] = state.accept(new_run(delay_s=0.01))
            state.wait_for(lambda: state.pushed() == [delayed.id])
            beats_go_on(state)
            assert state.run(executing)["status"] == "executing"
            other.rollback()
            state.wait_for(lambda: not state.rows("SELECT FROM triggerkit.spans"))


def test_work_that_somebodys_lock_holds_up_costs_no_lease(state: RunState) -> None:
    with keeping(state), other_connection(state) as other:
        executing = execute_here(state)
        state.wait_for(lambda: state.rows(BEATS))
        other.execute("SELECT FROM triggerkit.runs FOR UPDATE")
        state.connection.execute(
            "INSERT INTO triggerkit.queues (name, concurrency) VALUES ('default', 5)"
        )
        other.execute("SELECT FROM triggerkit.queues FOR UPDATE")
        state.connection.execute(
            "INSERT INTO triggerkit.runs (id, task, queue, status, max_attempts, payload, gate)"
            " VALUES ('run_held', %s, 'default', 'queued', 1, '{}', 'held')",
            [TASK],
        )
        state.wait_for(lambda: state.rows(WAITING))
        beats_go_on(state)
        assert state.run(executing)["status"] == "executing"


def test_a_years_missed_ticks_are_skipped_in_no_time(state: RunState) -> None:
    state.connection.execute(
        "INSERT INTO triggerkit.schedules (name, task, queue, max_attempts, cron, timezone, "
        "next_at) SELECT 's' || n, %s, 'default', 1, '* * * * *', 'UTC', now() - interval '1 year' "
        "FROM generate_series(1, 20) n",
        [TASK],
    )
    started = time.monotonic()
    DueSchedules().make_due_runs(state.connection)
    assert time.monotonic() - started < 1.0
    assert len(state.statuses()) <= 40
    [next_at] = state.rows("SELECT DISTINCT next_at FROM triggerkit.schedules")
    assert timedelta(0) < next_at - datetime.now(UTC) <= timedelta(minutes=1)


def test_a_statement_timeout_of_the_role_keeps_no_dead_worker_alive(
    state: RunState,
) -> None:
    """As an administrator sets it, on the role or the database."""
    [handle] = state.accept(new_run())
    with state.claims("dead") as claims:
        claims.claim(state.take())
    name = sql.Identifier(state.connection.info.dbname)
    for option in ("statement_timeout", "lock_timeout"):
        state.connection.execute(
            sql.SQL("ALTER DATABASE {} SET {} = '1ms'").format(name, sql.SQL(option))
        )
    with keeping(state, lease_s=2.0):
        state.wait_for(lambda: state.pushed() == [handle.id], 20)
        executing = execute_here(state)
        beats_go_on(state)
        assert state.run(executing)["status"] == "executing"


def test_a_heartbeat_that_fails_forgets_nothing_of_the_others(
    state: RunState, caplog: pytest.LogCaptureFixture
) -> None:
    [handle] = state.accept(new_run())
    with state.claims("dead") as claims:
        claims.claim(state.take())
    with keeping(state, lease_s=3.0):
        began = time.monotonic()
        beat, turn = WorkerHeartbeat.beat, count()

        def failing(heartbeat: WorkerHeartbeat, connection: psycopg.Connection) -> bool:
            if next(turn) % 2:
                connection.execute("SELECT 1 / 0")
            return beat(heartbeat, connection)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WorkerHeartbeat, "beat", failing)
            # The keeper's looks would beat in its place.
            patch.setattr(WorkerHeartbeat, "along", lambda _: [])
            state.wait_for(lambda: state.pushed() == [handle.id], 20)
    assert time.monotonic() - began < 10
    assert "a heartbeat failed" in caplog.text


def test_while_a_keeper_leads_its_looks_beat_and_its_heartbeat_asks_nothing(
    state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    own: list[None] = []
    beat = WorkerHeartbeat.beat

    def counted(heartbeat: WorkerHeartbeat, connection: psycopg.Connection) -> bool:
        own.append(None)
        return beat(heartbeat, connection)

    monkeypatch.setattr(WorkerHeartbeat, "beat", counted)
    with keeping(state):
        beats_go_on(state)
        before = len(own)
        beats_go_on(state)
        beats_go_on(state)
        # A look may be late on a busy machine, and the heartbeat makes up for it.
        assert len(own) - before <= 3


def test_a_look_that_is_held_up_costs_no_lease(state: RunState) -> None:
    with keeping(state), other_connection(state) as other:
        executing = execute_here(state)
        other.execute("LOCK TABLE triggerkit.schedules IN ACCESS EXCLUSIVE MODE")
        state.wait_for(lambda: state.rows(WAITING))
        beats_go_on(state)
        assert state.run(executing)["status"] == "executing"
        other.rollback()
        [delayed] = state.accept(new_run(delay_s=0.01))
        state.wait_for(lambda: state.pushed() == [delayed.id])


def test_a_workers_row_that_somebody_locks_holds_up_no_look(state: RunState) -> None:
    with keeping(state, lease_s=30.0), other_connection(state) as other:
        other.execute("SELECT FROM triggerkit.workers FOR UPDATE")
        for _ in range(3):
            [delayed] = state.accept(new_run(delay_s=0.01))
            state.wait_for(lambda delayed=delayed: delayed.id in state.pushed())  # type: ignore[misc]


def test_a_line_over_which_nobody_answers_any_more_is_left_for_another(
    state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a proxy that keeps it up, or a server that hangs: no packet is lost."""
    monkeypatch.setattr(heartbeat, "ANSWER_S", 0.5)

    async def scenario() -> None:
        async with Proxy.start(state.settings.state_dsn) as proxy:
            url = SecretStr(proxy.dsn(state.settings.state_dsn))
            through = state.settings.model_copy(update={"database_url": url})
            kept = threading.Event()

            def keep() -> None:
                with keeping(state, settings=through):
                    beats_go_on(state)
                    loop.call_soon_threadsafe(proxy.cut)
                    [before] = state.rows(BEATS)
                    state.wait_for(lambda: state.rows(BEATS)[0] >= before + 5)
                    kept.set()

            loop = asyncio.get_running_loop()
            await asyncio.to_thread(keep)
            assert kept.is_set()

    asyncio.run(scenario())
