"""A worker that loses Postgres or Redis, or finds there what does not belong."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import psycopg
import pytest

from tests.integration.run_state import TASK, RunState, completed, new_run, postgres_away, run_state
from tests.integration.worker_thread import Order, executing, working
from triggerkit import Task, task
from triggerkit.runs.claim import RunClaims
from triggerkit.runs.run import ClaimedRun, Outcome, new_run_id
from triggerkit.runs.transport.open import open_transport
from triggerkit.runs.transport.redis import RedisTransport
from triggerkit.settings import Settings
from triggerkit.worker.completions import Completions
from triggerkit.worker.fetch.fetcher import Fetcher
from triggerkit.worker.fetch.slots import Slots

SLOTS = 4


def meeting(name: str) -> Task[Any, Any, Any]:
    """A task whose runs end only when as many execute at once as there are slots."""
    together = threading.Barrier(SLOTS)

    @task(name=name, retry=1)
    def meet(order: Order) -> int:
        return together.wait(timeout=10)

    return meet


def assert_every_slot_works(state: RunState, meet: Task[Any, Any, Any]) -> None:
    runs = [meet.new_run({"number": n}) for n in range(SLOTS)]
    state.accept(*runs)
    state.wait_for_status("completed", *(run.id for run in runs))


def test_what_ends_or_is_taken_while_postgres_is_away_goes_on_when_it_is_back(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    @task
    def slow(order: Order) -> str:
        if order.number == 0:
            entered.set()
            assert go_on.wait(10)
        return "done"

    meet = meeting("meet_after_postgres")
    during, taken = slow.new_run({"number": 0}), slow.new_run({"number": 1})
    with run_state(settings) as before:
        before.accept(taken)
        before.take("slow")
        with working(before, slow, meet, threads=SLOTS):
            before.accept(during)
            assert entered.wait(10)
            with postgres_away(settings):
                before.push(taken.id, task="slow")
                go_on.set()
                for what in ("cannot take runs", "outcomes wait", "the worker's lease waits"):
                    before.wait_for(lambda what=what: what in caplog.text)  # type: ignore[misc]
            with run_state(settings) as after:
                rows = after.wait_for_status("completed", during.id, taken.id)
                assert_every_slot_works(after, meet)
    assert [(row["attempt"], row["crashes"]) for row in rows] == [(1, 0), (1, 0)]


def test_a_worker_whose_redis_connections_break_goes_on_with_all_its_slots(
    state: RunState,
) -> None:
    meet = meeting("meet_after_redis")
    with working(state, meet, threads=SLOTS):
        for _ in range(3):
            assert_every_slot_works(state, meet)
            state.redis.client_kill_filter(_type="normal", skipme=True)
        assert_every_slot_works(state, meet)


def take_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a fetcher look for more at each take, however long Redis took to answer."""
    monkeypatch.setattr("triggerkit.runs.transport.redis.AT_ONCE_S", 60.0)
    monkeypatch.setattr("triggerkit.worker.fetch.fetcher.RETRY_S", 0.0)


def test_what_was_taken_when_redis_failed_is_still_queued_and_the_next_take_is_whole(
    state: RunState, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_all_there_is(monkeypatch)
    user, password = "that_removes_none", "for-the-tests-only"
    state.redis.acl_setuser(
        user,
        enabled=True,
        passwords=[f"+{password}"],
        keys=["*"],
        commands=["+@all", "-zremrangebyrank"],
    )
    socket = state.redis.connection_pool.connection_kwargs["path"]
    limited = RedisTransport(f"unix://{user}:{password}@{socket}", state.namespace)
    runs = [new_run() for _ in range(2 * SLOTS)]
    state.accept(*runs)
    with state.claims() as claims:
        fetcher = Fetcher(limited.source([TASK]), lambda: claims, Slots(SLOTS))
        assert [fetcher.claim() for _ in range(3)] == [[]] * 3
        state.redis.acl_setuser(user, commands=["+zremrangebyrank"])
        given = fetcher.claim()
    assert [run.id for run in given] == [run.id for run in runs[3 : 3 + SLOTS]]
    assert state.pushed() == [run.id for run in runs[3 + SLOTS :]]
    assert state.statuses() == ["queued"] * 3 + ["executing"] * SLOTS + ["queued"] * (SLOTS - 3)
    state.redis.acl_deluser(user)


class Unanswered(RunClaims):
    """Claims, and loses the connection before the answer."""

    def claim(
        self,
        run_ids: Sequence[str],
        name: str | None = None,
        *,
        tasks: Sequence[str] | None = None,
        with_suspects: bool = True,
    ) -> list[ClaimedRun]:
        super().claim(run_ids, name, tasks=tasks, with_suspects=with_suspects)
        raise psycopg.OperationalError("server closed the connection unexpectedly")


def test_runs_whose_claim_was_done_but_not_answered_are_executed(
    state: RunState, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_all_there_is(monkeypatch)
    kinds = [Unanswered, Unanswered]

    def open_claims() -> RunClaims:
        kind = kinds.pop(0) if kinds else RunClaims
        return kind(psycopg.connect(settings.state_dsn, autocommit=True), "worker-1", [TASK])

    with state.claims("worker-1"):
        pass  # it has a lease now
    runs = [new_run() for _ in range(2 * SLOTS)]
    state.accept(*runs)
    transport = open_transport(settings, state.namespace)
    fetcher = Fetcher(transport.source([TASK]), open_claims, Slots(SLOTS))
    for part in (runs[:SLOTS], runs[SLOTS:]):
        assert fetcher.claim() == []
        given = fetcher.claim()
        assert [(run.id, run.attempt) for run in given] == [(run.id, 1) for run in part]
    fetcher.close()


def test_what_is_no_run_in_redis_is_dropped_and_runs_beside_it_execute(
    state: RunState, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    @task
    def count(order: Order) -> None:
        calls.append(order.number)

    runs = [count.new_run({"number": n}) for n in range(3)]
    state.accept(*runs)
    state.take("count")
    unknown = new_run_id()
    ids = [run.id for run in runs]
    state.push(b"\xff\xfe", b"a\x00b", b"", b"run_1", unknown, *ids, task="count")
    with executing(state.settings, state.namespace, count):
        state.wait_for_status("completed", *ids)
        state.push(*ids, task="count")
        state.wait_for(lambda: state.pushed("count") == [])
    assert sorted(calls) == [0, 1, 2]
    assert unknown in caplog.text


def test_an_outcome_that_cannot_be_stored_fails_its_run_and_holds_up_no_other(
    state: RunState,
) -> None:
    runs = [new_run("row"), new_run(), new_run(), new_run("row")]
    state.accept(*runs)
    with state.claims() as claims:
        claimed = claims.claim(state.take())
    bad = [
        Outcome(claimed[0], "completed", spawned=(new_run("row/1", item_key="a\x00b"),)),
        replace(completed(claimed[1]), status="nonsense"),  # type: ignore[arg-type]
    ]
    completions = Completions(
        lambda: open_claims(state), open_transport(state.settings, state.namespace)
    )
    for outcome in (*bad, completed(claimed[2])):
        completions.put(outcome)
    completions.start()
    completions.stop()
    assert state.statuses() == ["failed", "failed", "completed", "queued"]
    errors = [state.run(run.id)["error"] for run in runs[:2]]
    assert [error["type"] for error in errors] == ["DataError", "CheckViolation"]
    assert "cannot be stored" in errors[0]["message"]
    assert state.pushed() == [runs[3].id]


def open_claims(state: RunState) -> RunClaims:
    connection = psycopg.connect(state.settings.state_dsn, autocommit=True)
    return RunClaims(connection, "worker-1", [TASK])


def test_large_outputs_are_left_out_with_a_note(state: RunState) -> None:
    @task
    def talk(order: Order) -> str:
        return "x" * order.number

    run = talk.new_run({"number": 2_000_000})
    state.accept(run)
    with executing(state.settings, state.namespace, talk):
        [row] = state.wait_for_status("completed", run.id)
    assert orjson.loads(row["output"]) == "(output of 2000002 bytes not stored)"
