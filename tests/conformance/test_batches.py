"""Batches of which items fail, in memory as on real servers."""

from __future__ import annotations

from tests.conformance.worlds import SOON, World
from tests.integration.worker_thread import Row
from triggerkit import BatchResult, Change, ItemFailure, Retry, current_run, task
from triggerkit.testing import fake_change


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


def test_what_a_task_waits_for_uses_up_no_attempt_and_halves_no_batch(world: World) -> None:
    calls: list[int] = []

    @task(retry=Retry(max_attempts=1, wait_for=(ConnectionError,)))
    def calling(batch: list[Change[Row]]) -> int:
        calls.append(len(batch))
        if len(calls) < 3:
            raise ConnectionRefusedError("nobody answers")
        return len(batch)

    with world.working(calling):
        [seen] = world.ended(calling.trigger([fake_change(Row(id=n)) for n in range(4)]))
    assert calls == [4, 4, 4]
    assert (seen.status, seen.attempt, seen.output) == ("completed", 3, 4)
