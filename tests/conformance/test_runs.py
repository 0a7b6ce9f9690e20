"""Runs in memory behave as those on real servers: each test is held against both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from tests.conformance.worlds import World, in_memory, on_servers
from triggerkit import (
    AbortRun,
    BatchResult,
    Change,
    Debounce,
    ItemFailure,
    Retry,
    RetryAfter,
    RunFailed,
    Tick,
    current_run,
    span,
    task,
)
from triggerkit.testing import fake_change

#: Retries that no test has to wait for.
SOON = Retry(max_attempts=3, min_delay_s=0.05, jitter=False)


class Order(BaseModel):
    """A payload."""

    number: int


class Row(BaseModel):
    """A row."""

    id: int
    text: str = ""


@pytest.fixture(params=["memory", "servers"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    where = (
        in_memory()
        if request.param == "memory"
        else on_servers(request.getfixturevalue("settings"))
    )
    with where as world:
        yield world


def test_sync_and_async_tasks_return_their_output(world: World) -> None:
    @task
    def double(order: Order) -> dict[str, int]:
        return {"doubled": order.number * 2}

    @task
    async def shout(change: Change[Row]) -> str:
        await asyncio.sleep(0)
        return f"{change.action} {change.record.text.upper()}"

    @task
    def nothing() -> None: ...

    with world.working(double, shout, nothing):
        seen = world.ended(
            double.trigger(Order(number=21)),
            shout.trigger(fake_change(Row(id=1, text="hey"))),
            nothing.trigger(),
        )
    assert [run.output for run in seen] == [{"doubled": 42}, "insert HEY", None]
    assert [(run.status, run.attempt, run.error) for run in seen] == [("completed", 1, None)] * 3


def test_a_failing_run_is_tried_again_until_it_succeeds_or_no_attempt_is_left(
    world: World,
) -> None:
    @task(retry=SOON)
    def at_third(order: Order) -> int:
        if current_run().attempt < order.number:
            raise ValueError(f"attempt {current_run().attempt}")
        return current_run().attempt

    with world.working(at_third):
        lucky, doomed = world.ended(
            at_third.trigger(Order(number=3)), at_third.trigger(Order(number=9))
        )
    assert (lucky.status, lucky.attempt, lucky.output, lucky.error) == ("completed", 3, 3, None)
    assert (doomed.status, doomed.attempt) == ("failed", 3)
    assert doomed.error == ("ValueError", "attempt 3")


def test_abort_run_ends_a_run_and_retry_after_uses_up_no_attempt(world: World) -> None:
    @task(retry=SOON)
    def aborted() -> None:
        raise AbortRun("closed")

    @task(retry=1)
    def patient() -> int:
        if current_run().attempt < 4:
            raise RetryAfter(0.05)
        return current_run().attempt

    with world.working(aborted, patient):
        seen = world.ended(aborted.trigger(), patient.trigger())
    assert [(run.status, run.attempt) for run in seen] == [("failed", 1), ("completed", 4)]


def test_a_hook_decides_and_hooks_see_how_a_run_ends(world: World) -> None:
    told: list[str] = []

    @task(retry=SOON)
    def hopeless() -> None:
        raise ValueError("no such account")

    @hopeless.on_error
    def decide(run: object, error: BaseException) -> AbortRun:
        told.append("error")
        return AbortRun("never")

    @hopeless.on_failure
    async def mourn(run: object, error: BaseException) -> None:
        told.append(f"failure {error}")

    with world.working(hopeless):
        [seen] = world.ended(hopeless.trigger())
    assert (seen.status, seen.attempt) == ("failed", 1)
    assert told == ["error", "failure no such account"]


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


def test_a_run_of_a_transaction_is_executed(world: World) -> None:
    @task
    def pay(order: Order) -> int:
        return order.number

    with world.working(pay):
        with world.transaction() as connection:
            handles = pay.trigger_many([Order(number=1), Order(number=2)], connection=connection)
        assert [seen.output for seen in world.ended(*handles)] == [1, 2]


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


def test_an_attempt_that_takes_too_long_is_stopped(world: World) -> None:
    @task(max_duration=0.1, retry=SOON)
    async def endless() -> None:
        await asyncio.sleep(60)

    with world.working(endless):
        [seen] = world.ended(endless.trigger())
    assert (seen.status, seen.attempt) == ("timed_out", 1)
    assert seen.error == ("TimedOut", "it took longer than its max_duration of 0.1 s")


def test_who_waits_for_a_run_gets_its_output_or_its_error(world: World) -> None:
    @task
    def double(order: Order) -> int:
        return order.number * 2

    @task
    async def refuse(order: Order) -> None:
        raise AbortRun("no")

    with world.working(double, refuse):
        assert double.trigger_and_wait(Order(number=4)) == 8
        assert asyncio.run(double.atrigger_and_wait(Order(number=5))) == 10
        with pytest.raises(RunFailed, match=r"is failed: no"):
            refuse.trigger_and_wait(Order(number=4))
        with pytest.raises(TimeoutError):
            double.trigger_and_wait(Order(number=4), delay=60, timeout=0.2)


def test_runs_wait_for_runs_of_their_own(world: World) -> None:
    @task
    def leaf(order: Order) -> int:
        return order.number

    @task
    async def middle(order: Order) -> int:
        both = [leaf.atrigger_and_wait(Order(number=n)) for n in (order.number, 1)]
        return sum([await one for one in both])

    @task
    def root(order: Order) -> int:
        return int(middle.trigger_and_wait(order)) + int(leaf.trigger_and_wait(order))

    with world.working(root, middle, leaf):
        [seen] = world.ended(root.trigger(Order(number=10)))
    assert (seen.status, seen.output) == ("completed", 21)


def test_tags_and_metadata_are_given_and_changed_by_the_run(world: World) -> None:
    @task
    def work() -> None:
        with span("part", size=1):
            current_run().add_tags("seen", "given")
        current_run().set_metadata(step=2)

    handle = work.trigger(tags=["given"], metadata={"by": "test"})
    with world.working(work):
        [seen] = world.ended(handle)
    assert (seen.tags, seen.metadata) == (["given", "seen"], {"by": "test", "step": 2})


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


def test_items_of_a_batch_that_fail_become_runs_of_their_own_in_order(world: World) -> None:
    calls: list[list[tuple[int, str]]] = []

    @task(retry=SOON)
    def index(batch: list[Change[Row]]) -> BatchResult:
        calls.append([(change.record.id, change.record.text) for change in batch])
        failed = [
            ItemFailure(change, ValueError(change.record.text), permanent=change.record.id == 3)
            for change in batch
            if change.record.text == "never"
            or (change.record.text == "once" and current_run().attempt == 1)
        ]
        return BatchResult(len(batch), tuple(failed))

    rows = [Row(id=1, text="once"), Row(id=2), Row(id=3, text="never"), Row(id=1, text="last")]
    batch = index.trigger([fake_change(row) for row in rows])
    with world.working(index):
        [seen] = world.ended(batch)
        assert (seen.status, seen.output) == ("completed", 4)
        items = world.failed_items(batch)
        world.ended(index.trigger([fake_change(Row(id=9))], delay=1.5))
    assert [item[:2] for item in items] == [
        ('public.posts:["1"]', "once"),
        ('public.posts:["3"]', "never"),
    ]
    assert calls[1:] == [[(1, "once")], [(1, "last")], [(9, "")]]


def test_a_row_that_failed_holds_its_items_of_later_batches(world: World) -> None:
    calls: list[list[str]] = []

    @task(retry=Retry(max_attempts=2, min_delay_s=0.5, jitter=False))
    def index(batch: list[Change[Row]]) -> BatchResult:
        calls.append([change.record.text for change in batch])
        first = [c for c in batch if c.record.text == "a1" and current_run().attempt == 1]
        return BatchResult(None, tuple(ItemFailure(c, ValueError("a1")) for c in first))

    with world.working(index):
        world.came_to("completed", index.trigger([fake_change(Row(id=1, text="a1"))]))
        rows = [Row(id=1, text="a2"), Row(id=2, text="b1")]
        world.came_to("completed", index.trigger([fake_change(row) for row in rows]))
        world.ended(index.trigger([fake_change(Row(id=3, text="c1"))], delay=2))
    assert calls == [["a1"], ["b1"], ["a1"], ["a2"], ["c1"]]


def test_a_batch_that_raises_at_its_last_attempt_is_tried_in_halves(world: World) -> None:
    calls: list[list[int]] = []

    @task(retry=1)
    def index(batch: list[Change[Row]]) -> None:
        calls.append([change.record.id for change in batch])
        if 3 in calls[-1]:
            raise ValueError("three")

    handle = index.trigger([fake_change(Row(id=n)) for n in range(1, 5)])
    with world.working(index):
        [seen] = world.ended(handle)
    assert seen.status == "completed"
    assert calls == [[1, 2, 3, 4], [1, 2], [3, 4], [3], [4]]
    assert world.failed_items(handle) == [('public.posts:["3"]', "three", False)]


def test_many_are_triggered_with_a_key_for_each_place(world: World) -> None:
    @task
    def work(order: Order) -> int:
        return order.number

    orders = [Order(number=n) for n in range(3)]
    handles = work.trigger_many(orders, idempotency_key="k")
    assert [h.id for h in work.trigger_many(orders, idempotency_key="k")] == [h.id for h in handles]
    with world.working(work):
        assert [seen.output for seen in world.ended(*handles)] == [0, 1, 2]


def test_a_tick_of_a_schedule_makes_a_run_that_knows_it(world: World) -> None:
    @task(schedule="* * * * *")
    def every_minute(tick: Tick) -> tuple[str, int, bool]:
        return tick.schedule, tick.at.second, tick.last_at is None

    with world.working(every_minute):
        world.start_schedule(every_minute)
        [seen] = world.ended(world.first())
    assert seen.output == ["every_minute", 0, True]
