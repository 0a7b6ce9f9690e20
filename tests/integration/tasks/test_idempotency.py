"""Idempotency keys of triggers: where they count, for how long, and how they are forgotten."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.integration.run_state import RunState
from tests.integration.worker_thread import working
from triggerkit import Handle, Retry, task
from triggerkit.errors import ConfigurationError, NotDurable


@task(name="once_note")
def note() -> None:
    """Does nothing."""


@task(name="once_other")
def other() -> None:
    """Does nothing either."""


def test_a_key_makes_one_run_of_its_task(triggers: RunState) -> None:
    first = note.trigger(idempotency_key="order 7")
    assert note.trigger(idempotency_key="order 7") == Handle(first.id, "once_note", duplicate=True)
    assert other.trigger(idempotency_key="order 7").id != first.id
    assert len(triggers.statuses()) == 2


def test_a_key_of_a_scope_counts_in_its_run_or_its_attempt(triggers: RunState) -> None:
    made: dict[str, list[Handle]] = {"run": [], "attempt": []}

    @task(retry=Retry(max_attempts=2, min_delay_s=0))
    def parent() -> None:
        for _ in range(2):
            made["run"].append(note.trigger(idempotency_key="k", idempotency_scope="run"))
            made["attempt"].append(note.trigger(idempotency_key="k", idempotency_scope="attempt"))
        if len(made["run"]) < 4:
            raise ValueError("again")

    handles = [parent.trigger()]
    with working(triggers, parent):
        triggers.wait_for_status("completed", handles[0].id)
        assert [h.duplicate for h in made["run"]] == [False, True, True, True]
        assert [h.duplicate for h in made["attempt"]] == [False, True, False, True]
        handles.append(parent.trigger())
        triggers.wait_for_status("completed", handles[1].id)
    assert not made["run"][4].duplicate
    parents = "SELECT DISTINCT parent_id FROM triggerkit.runs WHERE task = 'once_note' ORDER BY 1"
    assert triggers.rows(parents) == [handle.id for handle in handles]


def test_a_scope_needs_a_run(triggers: RunState) -> None:
    with pytest.raises(ConfigurationError, match="works only inside a run"):
        note.trigger(idempotency_key="k", idempotency_scope="run")


def test_a_key_whose_time_is_over_makes_a_run_again(triggers: RunState) -> None:
    def expire_all() -> None:
        triggers.connection.execute(
            "UPDATE triggerkit.runs SET idempotency_expires_at = now() - interval '1 second' "
            "WHERE idempotency_expires_at IS NOT NULL"
        )

    first = note.trigger(idempotency_key="k", idempotency_ttl=3600)
    assert note.trigger(idempotency_key="k").id == first.id
    expire_all()
    second = note.trigger(idempotency_key="k", idempotency_ttl=3600)
    assert (second.duplicate, second.id != first.id) == (False, True)
    expire_all()
    with psycopg.connect(triggers.settings.state_dsn) as connection:
        third = note.trigger(idempotency_key="k", connection=connection)
    assert not third.duplicate
    assert len(triggers.statuses()) == 3


def test_a_key_that_is_reset_makes_a_run_again(triggers: RunState) -> None:
    for key in ("k", "long" * 500):
        first = note.trigger(idempotency_key=key)
        assert note.reset_idempotency_key(key)
        assert not note.reset_idempotency_key(key)
        assert note.trigger(idempotency_key=key).id != first.id


def test_of_many_each_payload_has_a_key_of_its_own(triggers: RunState) -> None:
    @task
    def add(number: dict[str, int]) -> None: ...

    numbers = [{"n": n} for n in range(3)]
    first = add.trigger_many(numbers, idempotency_key="import 1")
    again = add.trigger_many([*numbers, {"n": 3}], idempotency_key="import 1")
    assert [handle.id for handle in again[:3]] == [handle.id for handle in first]
    assert [handle.duplicate for handle in again] == [True, True, True, False]


def test_who_waits_for_a_key_of_an_open_transaction_holds_nobody_else_up(
    triggers: RunState,
) -> None:
    with psycopg.connect(triggers.settings.state_dsn) as connection, ThreadPoolExecutor(8) as pool:
        first = note.trigger(connection=connection, idempotency_key="held")
        waiting = [pool.submit(note.trigger, idempotency_key="held") for _ in range(7)]
        for n in range(20):
            pool.submit(note.trigger, idempotency_key=f"free {n}").result(4)
        other.trigger()
        assert not any(trigger.done() for trigger in waiting)
        connection.commit()
        assert [(h.id, h.duplicate) for h in (t.result(5) for t in waiting)] == [
            (first.id, True)
        ] * 7


def test_a_key_that_stays_held_is_told_of_with_what_to_do(triggers: RunState) -> None:
    with psycopg.connect(triggers.settings.state_dsn) as connection:
        note.trigger(connection=connection, idempotency_key="held")
        with pytest.raises(NotDurable, match=r"has held its idempotency key.*connection="):
            note.trigger(idempotency_key="held")
        connection.rollback()
    assert not note.trigger(idempotency_key="held").duplicate
