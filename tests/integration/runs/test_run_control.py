"""Runs are canceled and queues paused on the real state; what they held goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg import sql

from tests.integration.run_state import RunState, completed, failed_attempt, ids_of, new_run
from tests.integration.worker_thread import working
from triggerkit import current_run, task
from triggerkit.errors import TriggerkitError, UnknownRun
from triggerkit.runs.accept.within import accept_within
from triggerkit.runs.admin import control
from triggerkit.runs.admin.browse import count_of, list_runs, show_run
from triggerkit.runs.admin.control import Cancellation, cancel_run, cancel_runs
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.admin.queues import find_queue, limit_queue, pause_queue, resume_queue
from triggerkit.runs.client import Client
from triggerkit.runs.keeper.recover import admit_pending
from triggerkit.runs.run import RunOptions
from triggerkit.state.channels import KEEPER

T = TypeVar("T")

ACTOR = "test"


def with_client(state: RunState, work: Callable[[Client], Awaitable[T]]) -> T:
    async def connected() -> T:
        client = await Client.open(state.settings)
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(connected())


def listed(state: RunState, wanted: RunFilter, **given: Any) -> tuple[list[str], str | None]:
    async def looked(client: Client) -> tuple[list[str], str | None]:
        async with client.pool.connection() as connection:
            found, following = await list_runs(connection, wanted, **given)
        return [run["id"] for run in found], following

    return with_client(state, looked)


def audited(state: RunState) -> list[Any]:
    return state.rows("SELECT actor, action, subject FROM triggerkit.audit ORDER BY id")


def test_a_waiting_run_is_canceled_at_once_and_frees_its_key(state: RunState) -> None:
    first, second = state.accept(new_run("row/1"), new_run("row/1"))
    state.take()
    done = with_client(state, lambda client: cancel_run(client, first.id, ACTOR))
    assert done == Cancellation(canceled=1)
    run = state.run(first.id)
    assert (run["status"], run["finished_at"] is not None) == ("canceled", True)
    assert state.pushed() == [second.id]
    assert state.broken_keys() == []
    assert audited(state) == [(ACTOR, "cancel run", f"run {first.id}")]
    with pytest.raises(TriggerkitError, match="is canceled: it has ended already"):
        with_client(state, lambda client: cancel_run(client, first.id, ACTOR))
    with pytest.raises(UnknownRun, match="triggerkit runs list"):
        with_client(state, lambda client: cancel_run(client, "run_x", ACTOR))


def test_a_canceled_run_frees_its_place_in_its_queue(state: RunState) -> None:
    state.connection.execute(
        "INSERT INTO triggerkit.queues (name, concurrency) VALUES ('default', 1)"
    )
    [first] = state.accept(new_run())
    [second] = state.accept(new_run())
    assert state.take() == [first.id]
    with_client(state, lambda client: cancel_run(client, first.id, ACTOR))
    assert state.pushed() == [second.id]


def test_a_run_between_attempts_is_canceled_at_once(state: RunState) -> None:
    [handle] = state.accept(new_run())
    with state.claims() as claims:
        [run] = claims.claim(state.take())
        claims.complete([failed_attempt(run, 60.0)])
    with_client(state, lambda client: cancel_run(client, handle.id, ACTOR))
    assert state.run(handle.id)["status"] == "canceled"
    assert state.attempts(handle.id) == [(1, "failed", "worker-1")]


def test_an_executing_run_is_asked_and_keepers_are_woken(state: RunState) -> None:
    [handle] = state.accept(new_run())
    with (
        psycopg.connect(state.settings.state_dsn, autocommit=True) as listening,
        state.claims() as claims,
    ):
        listening.execute(f"LISTEN {KEEPER}")
        [run] = claims.claim(state.take())
        done = with_client(state, lambda client: cancel_run(client, handle.id, ACTOR))
        assert done == Cancellation(asked=1)
        assert [n.channel for n in listening.notifies(timeout=5, stop_after=1)] == [KEEPER]
        assert state.run(handle.id)["status"] == "executing"
        claims.complete([failed_attempt(run, 0.01)])
    assert state.run(handle.id)["status"] == "canceled"


def test_a_task_that_executes_is_stopped_by_its_worker(state: RunState) -> None:
    @task
    async def endless() -> None:
        current_run().set_metadata(here=True)
        await asyncio.Event().wait()

    with working(state, endless):
        [handle] = state.accept(endless.new_run(None))
        state.wait_for_status("executing", handle.id)
        with_client(state, lambda client: cancel_run(client, handle.id, ACTOR))
        [run] = state.wait_for_status("canceled", handle.id)
    assert run["error"]["type"] == "Canceled"


def test_bulk_cancel_takes_what_fits_in_chunks_and_tells_how_far(
    state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CHUNK", 3)
    handles = state.accept(*(new_run(f"row/{n % 2}") for n in range(7)), new_run(queue="other"))
    with state.claims() as claims:
        claims.claim([handles[0].id])
    told: list[int] = []
    wanted = RunFilter(queue="default")
    done = with_client(
        state, lambda client: cancel_runs(client, wanted, ACTOR, progress=told.append)
    )
    assert done == Cancellation(canceled=6, asked=1)
    assert told == [3, 3, 1]
    assert state.statuses() == ["executing", *["canceled"] * 6, "queued"]
    assert state.broken_keys() == []
    [detail] = state.rows("SELECT detail FROM triggerkit.audit")
    assert detail == {"filter": {"queue": "default"}, "runs": 7}


def test_a_cancel_that_meets_a_completion_the_other_way_round_is_made_again(
    state: RunState,
) -> None:
    first, second = sorted(h.id for h in state.accept(new_run(), new_run()))
    lock = "SELECT FROM triggerkit.runs WHERE id = %s FOR UPDATE"
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
    # Whoever looks for a deadlock while there is one gives up: that is to be the cancel.
    database = sql.Identifier(state.connection.info.dbname)
    state.connection.execute(
        sql.SQL("ALTER DATABASE {} SET deadlock_timeout = '4s'").format(database)
    )
    with ThreadPoolExecutor() as threads, psycopg.connect(state.settings.state_dsn) as completing:
        completing.execute("SET deadlock_timeout = '60s'")
        completing.execute(lock, [second])
        canceling = threads.submit(
            with_client, state, lambda client: cancel_runs(client, RunFilter(), ACTOR)
        )
        state.wait_for(lambda: state.rows(waiting, "%cancel_requested_at%"))
        completing.execute(lock, [first])
        completing.commit()
        assert canceling.result().canceled == 2
    assert state.statuses() == ["canceled", "canceled"]


def test_bulk_cancel_goes_on_where_it_was_stopped(state: RunState) -> None:
    state.accept(*(new_run() for _ in range(5)))
    first = with_client(state, lambda client: cancel_runs(client, RunFilter(), ACTOR, most=2))
    assert (first.canceled, first.next is not None) == (2, True)
    rest = with_client(
        state, lambda client: cancel_runs(client, RunFilter(), ACTOR, after=first.next)
    )
    assert (rest.canceled, rest.next) == (3, None)


def test_a_paused_queue_starts_nothing_until_it_is_resumed(state: RunState) -> None:
    handles = state.accept(*(new_run() for _ in range(3)), new_run("row/1"), new_run("row/1"))
    ids = [handle.id for handle in handles]
    with state.claims() as claims:
        found = with_client(state, lambda client: pause_queue(client, "default", ACTOR))
        assert (found.paused_at is not None, found.queued, found.held) == (True, 0, 4)
        assert claims.claim(state.take()) == []
        [late] = state.accept(new_run())
        assert state.pushed() == []
        with_client(state, lambda client: resume_queue(client, "default", ACTOR))
        assert state.pushed() == [*ids[:4], late.id]
        runs = claims.claim(state.take())
        assert len(runs) == 5
        assert ids_of(claims.complete([completed(run) for run in runs])) == [ids[4]]
    assert [action for _, action, _ in audited(state)] == ["pause queue", "resume queue"]
    with pytest.raises(TriggerkitError, match="is not paused"):
        with_client(state, lambda client: resume_queue(client, "default", ACTOR))


def test_a_resumed_queue_lets_through_what_its_limit_lets(state: RunState) -> None:
    async def steps(client: Client) -> None:
        await limit_queue(client, "default", ACTOR, concurrency=2, rate=None)
        await pause_queue(client, "default", ACTOR)
        await client.accept([new_run() for _ in range(3)])
        await resume_queue(client, "default", ACTOR)

    with_client(state, steps)
    assert len(state.pushed()) == 2


def test_limits_count_what_executes_already_and_can_be_taken_away(state: RunState) -> None:
    ids = sorted(h.id for h in state.accept(*(new_run() for _ in range(4))))
    with state.claims() as claims:
        claims.claim(ids[:1])

        async def limited(client: Client) -> list[int]:
            first = await limit_queue(client, "default", ACTOR, concurrency=2, rate=(100, 60.0))
            state.take()
            async with client.pool.connection() as connection:
                assert await find_queue(connection, "default") == first
            last = await limit_queue(client, "default", ACTOR, concurrency=None, rate=None)
            return [first.queued, first.held, first.executing, last.queued, last.held]

        assert with_client(state, limited) == [1, 2, 1, 3, 0]
        assert len(claims.claim(ids[1:])) == 3


def test_runs_are_found_by_each_filter(state: RunState) -> None:
    source = {"consumer": "posts", "table": "public.posts", "key": 'public.posts:["1"]'}
    [tagged, other] = state.accept(
        new_run(source={**source, "schedule": "nightly", "batch": "run_b"}), new_run(task="other")
    )
    state.connection.execute(
        "UPDATE triggerkit.runs SET tags = '{red,blue}', status = 'failed', finished_at = now(), "
        'error = \'{"type": "ValueError"}\' WHERE id = %s',
        [tagged.id],
    )
    fitting: dict[str, Any] = {
        "task": "work", "statuses": ("failed", "queued"), "tag": "red", "consumer": "posts",
        "table": "public.posts", "key": "1", "error": "ValueError", "schedule": "nightly",
        "batch": "run_b", "text": tagged.id[8:25],
    }  # fmt: skip
    assert listed(state, RunFilter(**fitting)) == ([tagged.id], None)
    wrong = {
        "task": "x", "statuses": ("executing",), "tag": "green", "consumer": "x", "table": "x",
        "key": "2", "error": "x", "schedule": "x", "batch": "x", "text": other.id, "queue": "x",
    }  # fmt: skip
    for name, value in wrong.items():
        assert listed(state, RunFilter(**{**fitting, name: value})) == ([], None), name
    [made] = state.rows("SELECT min(created_at) FROM triggerkit.runs")
    hour = made.replace(year=made.year + 1)
    assert listed(state, RunFilter(since=hour)) == ([], None)
    assert listed(state, RunFilter(until=hour))[0] == sorted([tagged.id, other.id], reverse=True)
    assert listed(state, RunFilter(until=made.replace(year=made.year - 1))) == ([], None)


def test_pages_follow_each_other_without_a_gap(state: RunState) -> None:
    ids = sorted((h.id for h in state.accept(*(new_run() for _ in range(7)))), reverse=True)
    seen, after = [], None
    while True:
        part, after = listed(state, RunFilter(statuses=("queued", "failed")), limit=3, after=after)
        seen += part
        if after is None:
            break
    assert seen == ids


def test_runs_are_counted_up_to_a_bound(state: RunState) -> None:
    state.accept(*(new_run() for _ in range(4)))

    async def counted(client: Client) -> list[int]:
        async with client.pool.connection() as connection:
            return [await count_of(connection, RunFilter(), most) for most in (3, 10)]

    assert with_client(state, counted) == [3, 4]


def test_a_run_is_shown_with_all_its_attempts_and_its_children(state: RunState) -> None:
    [handle] = state.accept(new_run())
    with state.claims() as claims:
        [run] = claims.claim(state.take())
        claims.complete([failed_attempt(run, 0.001)])
        state.connection.execute("UPDATE triggerkit.runs SET status = 'queued'")
        [run] = claims.claim([handle.id])
        [child] = state.accept(new_run(task="child"))
        state.connection.execute(
            "UPDATE triggerkit.runs SET parent_id = %s WHERE id = %s", [handle.id, child.id]
        )

        async def shown(client: Client) -> dict[str, Any] | None:
            async with client.pool.connection() as connection:
                return await show_run(connection, handle.id)

        found = with_client(state, shown)
        assert found is not None
        assert [(a["attempt"], a["status"]) for a in found["attempts"]] == [
            (1, "failed"),
            (2, "executing"),
        ]
        assert found["attempts"][1]["finished_at"] is None
        assert found["children"] == [{"id": child.id, "task": "child", "status": "queued"}]
        claims.complete([completed(run)])
        found = with_client(state, shown)
        assert found is not None
        assert (found["attempts"][1]["status"], found["output"]) == ("completed", "done")


def test_a_child_triggered_after_its_parents_cancel_was_requested_is_canceled(
    triggers: RunState,
) -> None:
    @task
    def child() -> None: ...

    @task(retry=1)
    def parent() -> None:
        try:
            while True:
                time.sleep(0.01)
        finally:
            child.trigger(delay=3600, cancel_with_parent=True, concurrency_key="k")
            child.trigger(cancel_with_parent=True, concurrency_key="k")

    handle = parent.trigger()
    with working(triggers, parent, child):
        triggers.wait_for_status("executing", handle.id)
        handle.cancel()
        triggers.wait_for_status("canceled", handle.id)
        query = "SELECT status FROM triggerkit.runs WHERE parent_id = %s"
        assert triggers.rows(query, handle.id) == ["canceled", "canceled"]
        triggers.wait_for_status("completed", child.trigger(concurrency_key="k").id)


def test_a_child_that_was_made_while_its_parent_was_being_canceled_is_never_executed(
    state: RunState,
) -> None:
    parent, behind = new_run(delay_s=60), new_run("k")
    child = new_run("k", options=RunOptions(parent_id=parent.id, cancel_with_parent=True))
    state.accept(parent)

    async def cancel(client: Client) -> None:
        await cancel_run(client, parent.id, "test")

    with psycopg.connect(state.settings.state_dsn) as connection:
        accept_within(connection, [child])
        with_client(state, cancel)
    admit_pending(state.connection)
    state.accept(behind)
    with state.claims() as claims:
        assert claims.claim([child.id]) == []
        assert state.run(child.id)["status"] == "canceled"
        assert [run.id for run in claims.claim([behind.id])] == [behind.id]
