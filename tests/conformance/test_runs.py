"""Runs in memory behave as those on real servers: each test is held against both."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.worlds import SOON, World
from tests.integration.worker_thread import Order, Row
from triggerkit import AbortRun, Change, RetryAfter, RunFailed, Tick, current_run, span, task
from triggerkit.testing import fake_change


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


def test_a_run_of_a_transaction_is_executed(world: World) -> None:
    @task
    def pay(order: Order) -> int:
        return order.number

    with world.working(pay):
        with world.transaction() as connection:
            handles = pay.trigger_many([Order(number=1), Order(number=2)], connection=connection)
        assert [seen.output for seen in world.ended(*handles)] == [1, 2]


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


def test_a_tick_of_a_schedule_makes_a_run_that_knows_it(world: World) -> None:
    @task(schedule="* * * * *")
    def every_minute(tick: Tick) -> tuple[str, int, bool]:
        return tick.schedule, tick.at.second, tick.last_at is None

    with world.working(every_minute):
        world.start_schedule(every_minute)
        [seen] = world.ended(world.first())
    assert seen.output == ["every_minute", 0, True]
