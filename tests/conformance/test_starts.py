"""When runs start and which are made, in memory as on real servers: keys, order, time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conformance.worlds import SOON, World
from tests.integration.worker_thread import Order, Row
from triggerkit import (
    Change,
    Debounce,
    Handle,
    Retry,
    RetryAfter,
    Run,
    RunFailed,
    TriggerkitError,
    current_run,
    task,
)
from triggerkit.errors import ConfigurationError, UnknownRun
from triggerkit.testing import fake_change


def test_an_idempotency_key_makes_one_run_until_its_time_is_over_or_it_is_reset(
    world: World,
) -> None:
    @task
    def pay(order: Order) -> None: ...

    @task
    def refund(order: Order) -> None: ...

    first = pay.trigger(Order(number=1), idempotency_key="k", idempotency_ttl=0.2)
    again = pay.trigger(Order(number=2), idempotency_key="k")
    assert (again.id, first.duplicate, again.duplicate) == (first.id, False, True)
    assert not refund.trigger(Order(number=1), idempotency_key="k").duplicate
    world.pass_time(0.3)
    later = pay.trigger(Order(number=3), idempotency_key="k")
    assert (later.id != first.id, later.duplicate) == (True, False)
    assert pay.reset_idempotency_key("k")
    assert not pay.reset_idempotency_key("k")
    assert not pay.trigger(Order(number=4), idempotency_key="k").duplicate
    assert world.count() == 4


def test_a_key_of_a_transaction_is_free_again_when_its_time_is_over(world: World) -> None:
    @task
    def pay(order: Order) -> None: ...

    def trigger(number: int) -> Any:
        with world.transaction() as connection:
            return pay.trigger(
                Order(number=number),
                connection=connection,
                idempotency_key="k",
                idempotency_ttl=0.2,
            )

    first, again = trigger(1), trigger(2)
    assert (again.id, again.duplicate) == (first.id, True)
    world.pass_time(0.3)
    later = trigger(3)
    assert (later.id != first.id, later.duplicate) == (True, False)


def test_triggers_that_follow_each_other_make_one_run_with_the_last_payload(world: World) -> None:
    @task
    def index(order: Order) -> int:
        return order.number

    handles = [
        index.trigger(Order(number=number), debounce=Debounce("k", 0.2)) for number in range(3)
    ]
    assert {handle.id for handle in handles} == {handles[0].id}
    assert [handle.duplicate for handle in handles] == [False, True, True]
    assert world.see(handles[0]).status == "delayed"
    with world.working(index):
        assert [seen.output for seen in world.ended(handles[0])] == [2]
        other = index.trigger(Order(number=7), debounce=Debounce("k", 0.05))
        assert other.id != handles[0].id
        assert [seen.output for seen in world.ended(other)] == [7]


def test_a_debounce_may_keep_the_first_trigger_and_wait_anew_for_each(world: World) -> None:
    @task
    def index(order: Order) -> int:
        return order.number

    asked = Debounce("k", 0.2, keeps="first")
    first = index.trigger(Order(number=1), debounce=asked, tags=["a"], metadata={"a": 1})
    again = index.trigger(Order(number=2), debounce=asked, tags=["b"], priority=7)
    assert (again.id, again.duplicate) == (first.id, True)
    run = first.run()
    assert (run.tags, run.metadata, run.priority) == (["a"], {"a": 1}, 0)
    neither = Debounce("k", 1, keeps="both")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="keeps the last or the first, not 'both'"):
        index.trigger(Order(number=3), debounce=neither)
    with world.working(index):
        assert [seen.output for seen in world.ended(first)] == [1]


def test_a_debounced_run_starts_at_the_latest_after_its_maximum(world: World) -> None:
    order: list[int] = []

    @task
    def index(given: Order) -> None:
        order.append(given.number)

    asked = Debounce("k", 60, maximum=0.2)
    first = index.trigger(Order(number=1), debounce=asked)
    index.trigger(Order(number=2), debounce=asked)
    with world.working(index):
        world.ended(first)
    assert order == [2]


def test_runs_of_one_key_keep_their_order_while_one_is_tried_again(world: World) -> None:
    order: list[tuple[str, int]] = []

    @task(retry=SOON)
    def step(change: Change[Row]) -> None:
        order.append((change.record.text, current_run().attempt))
        if change.record.text == "a1" and current_run().attempt == 1:
            raise ValueError("once more")

    changes = [fake_change(Row(id=1, text=text)) for text in ("a1", "b1", "a2", "a3")]
    handles = [step.trigger(c, concurrency_key=c.record.text[0]) for c in changes]
    with world.working(step):
        world.ended(*handles)
    assert order == [("a1", 1), ("b1", 1), ("a1", 2), ("a2", 1), ("a3", 1)]


def test_of_several_at_a_time_one_that_is_tried_again_keeps_its_place(world: World) -> None:
    order: list[tuple[int, int]] = []

    @task(retry=SOON, concurrency_per_key=2)
    def step(given: Order) -> None:
        order.append((given.number, current_run().attempt))
        if given.number == 1 and current_run().attempt == 1:
            step.trigger(Order(number=5), concurrency_key="k")
            raise RetryAfter(1)

    handles = [step.trigger(Order(number=n), concurrency_key="k") for n in range(1, 5)]
    assert [world.see(handle).status for handle in handles] == ["queued"] * 4
    with world.working(step):
        world.ended(*handles)
        world.ended(step.trigger(Order(number=6), concurrency_key="k"))
    assert order == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (1, 2), (6, 1)]


def test_a_priority_starts_a_run_as_if_it_were_older(world: World) -> None:
    order: list[int] = []

    @task
    def work(given: Order) -> None:
        order.append(given.number)

    handles = [
        work.trigger(Order(number=1)),
        work.trigger(Order(number=2), priority=100),
        work.trigger(Order(number=3)),
        work.trigger(Order(number=4), priority=200),
    ]
    with world.working(work):
        world.ended(*handles)
    assert order == [4, 2, 1, 3]


def test_a_delay_is_a_span_or_a_time(world: World) -> None:
    order: list[int] = []

    @task
    def work(given: Order) -> None:
        order.append(given.number)

    handles = [
        work.trigger(Order(number=1), delay=timedelta(seconds=0.4)),
        work.trigger(Order(number=2), delay=0.1),
        work.trigger(Order(number=3), delay=datetime.now(UTC) - timedelta(hours=1)),
    ]
    assert [world.see(handle).status for handle in handles] == ["delayed", "delayed", "queued"]
    with world.working(work):
        world.ended(*handles)
    assert order == [3, 2, 1]


def test_a_run_that_did_not_start_in_time_expires_and_lets_the_next_of_its_key_go(
    world: World,
) -> None:
    @task(ttl=0.1)
    def hurried(order: Order) -> int:
        return order.number

    late = hurried.trigger(Order(number=1), concurrency_key="k")
    patient = hurried.trigger(Order(number=2), concurrency_key="k", ttl=60)
    world.pass_time(0.2)
    with world.working(hurried):
        expired, done = world.ended(late, patient)
    assert (expired.status, expired.attempt, expired.output) == ("expired", 0, None)
    assert (done.status, done.output) == ("completed", 2)


def test_a_key_counts_in_the_run_or_in_its_attempt(world: World) -> None:
    duplicates: list[tuple[bool, bool]] = []

    @task
    def child() -> None: ...

    @task(retry=SOON)
    def parent() -> None:
        in_run = child.trigger(idempotency_key="r", idempotency_scope="run")
        in_attempt = child.trigger(idempotency_key="a", idempotency_scope="attempt")
        duplicates.append((in_run.duplicate, in_attempt.duplicate))
        if current_run().attempt == 1:
            raise ValueError("again")

    with world.working(parent, child):
        world.ended(parent.trigger())
    assert duplicates == [(False, False), (True, False)]
    assert world.count() == 4


def test_many_are_triggered_with_a_key_for_each_place(world: World) -> None:
    @task
    def work(order: Order) -> int:
        return order.number

    orders = [Order(number=n) for n in range(3)]
    handles = work.trigger_many(orders, idempotency_key="k")
    assert [h.id for h in work.trigger_many(orders, idempotency_key="k")] == [h.id for h in handles]
    with world.working(work):
        assert [seen.output for seen in world.ended(*handles)] == [0, 1, 2]


def test_a_debounced_run_has_the_options_of_its_last_trigger(world: World) -> None:
    @task
    def index(order: Order) -> None: ...

    debounce = Debounce("k", 1)
    first = index.trigger(
        Order(number=1), debounce=debounce, tags=["a"], metadata={"a": 1}, ttl=900
    )
    index.trigger(Order(number=2), debounce=debounce, tags=["b"], ttl=0.05, priority=7)
    run = first.run()
    assert (run.tags, run.metadata, run.priority) == (["b"], {}, 7)
    assert run.payload == {"number": 2}
    world.pass_time(1.2)
    with world.working(index):
        [seen] = world.ended(first)
    assert seen.status == "expired"


def test_a_ttl_counts_from_when_the_run_is_due(world: World) -> None:
    @task(ttl=1)
    def remind(order: Order) -> int:
        return order.number

    delayed = remind.trigger(Order(number=1), delay=1.5)
    moved = remind.trigger(Order(number=2), delay=60)
    moved.reschedule(1.5)
    brought_forward = remind.trigger(Order(number=3), delay=3600)
    brought_forward.reschedule(0)
    debounced = remind.trigger(Order(number=4), debounce=Debounce("k", 1.5))
    remind.trigger(Order(number=5), debounce=Debounce("k", 1.5))
    bounded = Debounce("b", 60, maximum=1.5)
    at_most = remind.trigger(Order(number=6), debounce=bounded)
    remind.trigger(Order(number=6), debounce=bounded)
    with world.working(remind):
        ended = world.ended(delayed, moved, brought_forward, debounced, at_most)
    assert [(seen.status, seen.output) for seen in ended] == [
        ("completed", number) for number in (1, 2, 3, 5, 6)
    ]


def test_a_run_is_looked_up_canceled_and_rescheduled_by_its_handle(world: World) -> None:
    @task(queue="mail")
    def mail(order: Order) -> Order:
        return Order(number=order.number + 1)

    later = mail.trigger(Order(number=1), delay=60, tags=["letter"])
    other = mail.trigger(Order(number=2), delay=60, concurrency_key="one")
    behind = mail.trigger(Order(number=3), concurrency_key="one")
    assert (later.status(), behind.status()) == ("delayed", "queued")
    assert [run.id for run in Run.list(tag="letter", status="delayed")] == [later.id]
    assert [run.id for run in Run.list(task=mail.name, queue="mail", limit=2)] == [
        behind.id,
        other.id,
    ]
    assert Run.list(task="none") == []
    assert other.cancel()
    assert not other.cancel()
    later.reschedule(0.05)
    with world.working(mail):
        assert behind.result(timeout=20) == Order(number=4)
        assert later.result(timeout=20) == Order(number=2)
        with pytest.raises(RunFailed, match="is canceled"):
            other.result(timeout=20)
    run = Run.get(later.id)
    assert (run.status, run.output, run.payload) == ("completed", {"number": 2}, {"number": 1})
    assert run.handle == Handle(later.id, mail.name)
    with pytest.raises(TriggerkitError, match="only a run that waits"):
        later.reschedule(1)
    with pytest.raises(UnknownRun):
        Run.get("run_none")


def test_handles_have_twins_for_async_callers(world: World) -> None:
    @task
    async def double(order: Order) -> int:
        return order.number * 2

    async def triggered() -> tuple[Handle[int], Handle[int]]:
        handle = await double.atrigger(Order(number=2), delay=60)
        other = await double.atrigger(Order(number=2), delay=60)
        await handle.areschedule(timedelta(seconds=0.05))
        assert await handle.astatus() == "delayed"
        assert await other.acancel()
        return handle, other

    async def ended(handle: Handle[int]) -> list[str]:
        assert await handle.aresult(20) == 4
        assert (await Run.aget(handle.id)).status == "completed"
        found = await Run.alist(task=double.name, status=["canceled", "completed"])
        return sorted(run.status for run in found)

    handle, _ = asyncio.run(triggered())
    with world.working(double):
        assert asyncio.run(ended(handle)) == ["canceled", "completed"]


def test_children_that_ask_for_it_are_canceled_with_their_parent(world: World) -> None:
    @task
    def child(order: Order) -> None: ...

    @task(retry=Retry(max_attempts=2, min_delay_s=60, jitter=False))
    def parent() -> None:
        child.trigger(Order(number=1), delay=60, cancel_with_parent=True)
        child.trigger(Order(number=2), delay=60)
        raise ValueError("again")

    handle = parent.trigger()
    with world.working(parent):
        world.came_to("retrying", handle)
        assert handle.cancel()
    statuses = [run.status for run in Run.list(task=child.name)]
    assert statuses == ["delayed", "canceled"]
    with pytest.raises(ConfigurationError, match="inside of a run"):
        child.trigger(Order(number=1), cancel_with_parent=True)


def test_children_that_are_triggered_after_their_parent_was_canceled_are_canceled_too(
    world: World,
) -> None:
    children: list[Handle] = []

    @task
    def child() -> None: ...

    @task(retry=1)
    def parent() -> None:
        try:
            world.cancel_here()
        finally:
            children.append(child.trigger(cancel_with_parent=True, idempotency_key="k"))
            children.append(child.trigger(delay=60, cancel_with_parent=True))
            children.append(child.trigger(delay=60))

    handle = parent.trigger()
    with world.working(parent):
        world.ended(handle)
    assert [world.see(one).status == "canceled" for one in children] == [True, True, False]
    assert child.trigger(idempotency_key="k").duplicate
