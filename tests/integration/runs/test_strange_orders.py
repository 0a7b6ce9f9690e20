"""What comes between the steps of others: transactions of callers, limits set late, keepers that
stand still, processes that fork."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.integration.run_state import TASK, RunState, completed, new_run
from triggerkit.runs.accept.within import accept_within
from triggerkit.runs.admin.queues import limit_queue
from triggerkit.runs.client import Client
from triggerkit.runs.keeper.heartbeat import KEEPER_LOCK
from triggerkit.runs.keeper.keeper import Keeper
from triggerkit.runs.keeper.liveness import FailureDetector
from triggerkit.runs.keeper.processes import ExecutingProcesses
from triggerkit.runs.keeper.retention import Retention
from triggerkit.runs.portal import portal
from triggerkit.runs.run import RunOptions
from triggerkit.runs.session import by_index
from triggerkit.runs.transport.open import open_transport
from triggerkit.settings import Settings
from triggerkit.state.connect import pinned


@pytest.fixture
def keeper(settings: Settings, state: RunState) -> Keeper:
    dsn = pinned(by_index(settings.state_dsn), "triggerkit keeper")
    transport = open_transport(settings, state.namespace)
    retention = Retention(timedelta(days=7))
    return Keeper(dsn, transport, ExecutingProcesses(), threading.Event(), retention)


def tick(keeper: Keeper, state: RunState) -> float:
    return keeper.tick(state.connection, FailureDetector(keeper.lease_s))


def caller(settings: Settings, level: psycopg.IsolationLevel) -> psycopg.Connection[Any]:
    connection = psycopg.connect(settings.state_dsn)
    connection.isolation_level = level
    return connection


@pytest.mark.parametrize("level", list(psycopg.IsolationLevel))
def test_a_run_of_a_callers_transaction_takes_its_turn_in_its_key_at_any_isolation(
    state: RunState, keeper: Keeper, settings: Settings, level: psycopg.IsolationLevel
) -> None:
    before, during = new_run("row"), new_run("row")
    state.accept(before)
    with caller(settings, level) as connection:
        connection.execute("SELECT count(*) FROM triggerkit.runs")
        with state.claims() as claims:
            claims.complete([completed(run) for run in claims.claim(state.take())])
        state.accept(during)
        accept_within(connection, [within := new_run("row")])
        assert state.take() == [during.id]
    tick(keeper, state)
    assert state.take() == []
    with state.claims() as claims:
        claims.complete([completed(run) for run in claims.claim([during.id, within.id])])
    assert state.run(during.id)["status"] == "completed"
    with state.claims() as claims:
        [last] = claims.claim([within.id])
    assert last.id == within.id


def test_an_open_transaction_of_a_caller_holds_up_nobody(
    state: RunState, keeper: Keeper, settings: Settings
) -> None:
    expiring = new_run("row", delay_s=60.0, options=RunOptions(ttl_s=60.0))
    delayed = new_run(delay_s=0.01)
    with caller(settings, psycopg.IsolationLevel.READ_COMMITTED) as connection:
        accept_within(connection, [new_run("row"), new_run("other")])
        state.accept(expiring, delayed)
        state.rows(
            "UPDATE triggerkit.runs SET expires_at = now() WHERE id = %s RETURNING id", expiring.id
        )
        state.wait_for(lambda: tick(keeper, state) and state.pushed() == [delayed.id], 5)
        assert state.run(expiring.id)["status"] == "expired"
        connection.rollback()


def test_two_callers_that_trigger_the_same_keys_the_other_way_round_do_not_meet(
    settings: Settings, state: RunState, keeper: Keeper
) -> None:
    level = psycopg.IsolationLevel.READ_COMMITTED
    with caller(settings, level) as one, caller(settings, level) as two:
        for connection, keys in ((one, "ab"), (two, "ba")):
            connection.execute("SET lock_timeout = '2s'")
            accept_within(connection, [new_run(keys[0])])
        accept_within(one, [new_run("b")])
        accept_within(two, [new_run("a")])
    tick(keeper, state)
    assert len(state.pushed()) == 2
    assert state.rows("SELECT count(*) FROM triggerkit.runs WHERE pending") == [0]


EXECUTING = "SELECT id FROM triggerkit.runs WHERE status = 'executing'"


def test_a_limit_set_late_counts_for_runs_that_waited_behind_their_keys(
    state: RunState, settings: Settings, keeper: Keeper
) -> None:
    runs = [new_run(f"row/{key}") for key in range(4) for _ in range(2)]
    state.accept(*runs)

    async def limit() -> None:
        client = await Client.open(settings)
        try:
            await limit_queue(client, "default", "test", concurrency=1, rate=None)
        finally:
            await client.close()

    with state.claims() as claims:
        first = claims.claim(state.take())
        assert len(first) == 4
        asyncio.run(limit())
        ready = claims.complete([completed(run) for run in first])
        assert len(claims.claim([run.id for run in ready])) == 1
        tick(keeper, state)
        assert len(state.rows(EXECUTING)) == 1


def test_a_run_of_a_transaction_that_was_open_when_a_limit_was_set_obeys_it(
    state: RunState, settings: Settings, keeper: Keeper
) -> None:
    async def limit() -> None:
        client = await Client.open(settings)
        try:
            await limit_queue(client, "default", "test", concurrency=1, rate=None)
        finally:
            await client.close()

    state.accept(first := new_run())
    with state.claims() as claims, psycopg.connect(settings.state_dsn) as connection:
        executing = claims.claim(state.take())
        accept_within(connection, late := [new_run(), new_run()])
        asyncio.run(limit())
        connection.commit()
        ids = [run.id for run in late]
        assert claims.claim(ids) == []
        tick(keeper, state)
        assert state.rows(EXECUTING) == [first.id]
        claims.complete([completed(run) for run in executing])
        tick(keeper, state)
        assert state.pushed() == ids[:1]
        assert [run.id for run in claims.claim(ids)] == ids[:1]


def test_a_keeper_that_leads_and_stands_still_is_unseated(
    settings: Settings, state: RunState, keeper: Keeper
) -> None:
    with psycopg.connect(settings.state_dsn, autocommit=True) as still:
        still.execute("SELECT pg_try_advisory_lock(%s)", [KEEPER_LOCK])
        state.connection.execute(
            "INSERT INTO triggerkit.workers (id, hostname, pid, parent_pid, slots, backend) "
            "VALUES ('still', 'host', 1, 1, 1, %s)",
            [still.info.backend_pid],
        )
        keeper.heartbeat.detector = FailureDetector(lease_s=0.0)
        with psycopg.connect(**keeper.dsn, autocommit=True) as follower:
            assert not keeper.heartbeat.beat(follower)
            state.wait_for(lambda: keeper.heartbeat.beat(follower))


def test_what_a_transaction_holds_back_is_looked_at_once_a_tick(
    state: RunState, keeper: Keeper, settings: Settings
) -> None:
    run = new_run(delay_s=0.01)
    state.accept(run)
    with psycopg.connect(settings.state_dsn) as connection:
        connection.execute("SELECT FROM triggerkit.runs WHERE id = %s FOR UPDATE", [run.id])
        state.wait_for(lambda: tick(keeper, state) == 1.0)
        assert state.pushed() == []
    tick(keeper, state)
    assert state.pushed() == [run.id]


def test_a_worker_without_a_lease_claims_nothing(state: RunState) -> None:
    run = new_run()
    state.accept(run)
    with state.claims("cut off") as claims:
        state.connection.execute("DELETE FROM triggerkit.workers")
        assert claims.claim([run.id]) == []
    assert state.statuses() == ["queued"]


def test_a_canceled_run_that_is_given_back_has_ended(state: RunState) -> None:
    run, behind = new_run("row"), new_run("row")
    state.accept(run, behind)
    with state.claims() as claims:
        claimed = claims.claim([run.id])
        state.connection.execute(
            "UPDATE triggerkit.runs SET cancel_requested_at = now() WHERE id = %s", [run.id]
        )
        assert [ready.id for ready in claims.give_back(claimed)] == [behind.id]
    assert state.statuses() == ["canceled", "queued"]


def test_a_key_outlives_the_retention_of_its_run_until_its_own_time_is_over(
    state: RunState,
) -> None:
    keyed = new_run(idempotency_key="k", options=RunOptions(idempotency_ttl_s=3600))
    other = new_run()
    state.accept(keyed, other)
    with state.claims() as claims:
        claims.complete([completed(run) for run in claims.claim(state.take())])
    retention = Retention(timedelta(seconds=-60))
    assert retention.apply(state.connection) == 1
    assert state.rows("SELECT id FROM triggerkit.runs") == [keyed.id]


def test_a_schedule_that_cannot_be_read_stops_no_other_and_keeps_its_tick(
    state: RunState, keeper: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    state.connection.execute(
        "INSERT INTO triggerkit.schedules (name, task, queue, max_attempts, cron, timezone, "
        "next_at) SELECT name, %s, 'default', 1, '* * * * *', zone, now() - interval '1 second' "
        "FROM (VALUES ('a', 'No/Where'), ('b', 'UTC')) AS s (name, zone)",
        [TASK],
    )
    next_at = "SELECT next_at FROM triggerkit.schedules WHERE name = 'a'"
    before = state.rows(next_at)
    tick(keeper, state)
    assert state.rows("SELECT source ->> 'schedule' FROM triggerkit.runs") == ["b"]
    # Another machine may know the zone: the tick is still to be made.
    assert state.rows(next_at) == before
    tick(keeper, state)
    assert (
        caplog.text.count("the schedule a creates no runs: there is no time zone 'No/Where'") == 1
    )


def trigger_in_child(ids: Any) -> None:
    [handle] = portal.accept([new_run()])
    ids.put(handle.id)


def test_a_forked_process_can_trigger(
    settings: Settings, state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal.close()
    monkeypatch.setattr(portal, "_load", lambda: settings)
    try:
        portal.accept([new_run()])
        context = multiprocessing.get_context("fork")
        ids = context.Queue()
        child = context.Process(target=trigger_in_child, args=[ids])
        child.start()
        assert ids.get(timeout=10) in state.rows("SELECT id FROM triggerkit.runs")
        child.join(10)
    finally:
        portal.close()
