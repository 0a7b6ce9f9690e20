"""Halving a batch, and the runs its failed items become."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from triggerkit import AbortRun, BatchResult, Change, ItemFailure, Retry, RetryAfter
from triggerkit.runs.run import ClaimedRun, NewRun
from triggerkit.tasks.payload.payload_type import PayloadType
from triggerkit.worker.batch import BatchItem, bisect, read_items, spawn_failed, spawn_held
from triggerkit.worker.failure import MAX_WAIT_S, failure_of, run_error


def work(batch: list[Change[dict[str, Any]]]) -> None: ...


def batch(*rows: str, max_attempts: int = 3) -> tuple[ClaimedRun, list[BatchItem]]:
    """A claimed run with an item for each of `rows`, such as `a1`: the row `a` in version 1."""
    messages = [
        {
            "record": {"version": row},
            "action": "insert",
            "metadata": {
                "table_schema": "public",
                "table_name": "t",
                "record_pks": [row[0]],
                "position": number,
            },
        }
        for number, row in enumerate(rows)
    ]
    run = ClaimedRun(
        id="run_batch",
        seq=1,
        task="work",
        queue="default",
        attempt=max_attempts,
        max_attempts=max_attempts,
        waits=0,
        payload=orjson.dumps({"data": messages}).decode(),
        items=len(messages),
        concurrency_key="consumer/0",
        item_key=None,
        source={"consumer": "consumer", "position": 0},
        started_at=datetime.now(UTC),
    )
    return run, read_items(run, PayloadType(work))


def versions(items: list[BatchItem]) -> list[str]:
    return [item.change.record["version"] for item in items]


def halve(
    rows: list[str], failing: dict[str, Exception], max_attempts: int = 3
) -> tuple[list[list[str]], list[str]]:
    """The calls that halving makes when each of `failing` raises, and the versions that failed."""
    calls: list[list[str]] = []

    async def call(items: list[BatchItem]) -> int:
        calls.append(versions(items))
        for version in calls[-1]:
            if version in failing:
                raise failing[version]
        return len(items)

    run, items = batch(*rows, max_attempts=max_attempts)
    result = asyncio.run(bisect(run, items, call, Retry().waits_for))
    return calls, [failure.change.record["version"] for failure in result.failed]


def failures(items: list[BatchItem], *failed: str, **given: Any) -> list[ItemFailure]:
    error = ValueError("no")
    return [ItemFailure(i.change, error, **given) for i in items if versions([i])[0] in failed]


def spawned(runs: tuple[NewRun, ...]) -> list[tuple[str, str, int]]:
    """Version, status and attempts made of each run."""
    records = [orjson.loads(run.payload)["data"][0]["record"]["version"] for run in runs]
    return [(v, run.status, run.attempt) for v, run in zip(records, runs, strict=True)]


def test_halving_leaves_only_items_that_fail_alone_and_keeps_the_order() -> None:
    calls, failed = halve(["a1", "b1", "c1", "d1", "e1"], {"c1": ValueError()})
    assert failed == ["c1"]
    assert calls == [["a1", "b1"], ["c1", "d1", "e1"], ["c1"], ["d1", "e1"]]


def test_every_item_may_fail_alone() -> None:
    rows = ["a1", "b1", "c1"]
    calls, failed = halve(rows, dict.fromkeys(rows, ValueError()))
    assert failed == rows
    assert [call for call in calls if len(call) == 1] == [["a1"], ["b1"], ["c1"]]


def test_later_items_of_a_failed_row_are_not_tried() -> None:
    calls, failed = halve(["a1", "b1", "a2", "c1"], {"a1": ValueError()})
    assert failed == ["a1"]
    assert calls == [["a1", "b1"], ["a1"], ["b1"], ["c1"]]


@pytest.mark.parametrize(("error", "attempts"), [(AbortRun("no"), 3), (ValueError(), 1)])
def test_later_items_are_tried_when_the_failed_one_never_will_be(
    error: Exception, attempts: int
) -> None:
    calls, failed = halve(["a1", "a2"], {"a1": error}, max_attempts=attempts)
    assert (calls, failed) == ([["a1"], ["a2"]], ["a1"])


def test_halving_stops_where_no_item_is_to_blame() -> None:
    calls, failed = halve(["a1", "b1", "c1", "d1"], {"c1": RetryAfter(5)})
    assert calls == [["a1", "b1"], ["c1", "d1"]]
    assert failed == ["c1", "d1"]


def test_items_named_as_failed_in_a_half_are_kept_with_the_others() -> None:
    run, items = batch("a1", "b1")
    results = iter([BatchResult("one", tuple(failures(items, "a1"))), "two"])

    async def call(part: list[BatchItem]) -> object:
        return next(results)

    result = asyncio.run(bisect(run, items, call, Retry().waits_for))
    assert result.output == ["one", "two"]
    assert [failure.change for failure in result.failed] == [items[0].change]


def test_a_failed_item_becomes_a_run_of_its_row_with_its_later_versions_behind_it() -> None:
    run, items = batch("a1", "b1", "a2", "b2", "a3")
    made = spawn_failed(run, items, failures(items, "a3", "a1"), wait_s=2.0)
    assert spawned(made) == [("a1", "retrying", 1), ("a2", "queued", 0), ("a3", "retrying", 1)]
    assert {item.concurrency_key for item in made} == {'row/public.t:["a"]'}
    assert (made[0].delay_s, made[0].items, made[0].item_key) == (2.0, 1, 'public.t:["a"]')
    assert made[0].source == {
        "consumer": "consumer",
        "position": 0,
        "key": 'public.t:["a"]',
        "batch": "run_batch",
    }
    assert made[0].error is not None
    assert made[0].error.type == "ValueError"


def test_nothing_goes_behind_an_item_that_is_not_tried_again() -> None:
    run, items = batch("a1", "a2")
    made = spawn_failed(run, items, failures(items, "a1", permanent=True), wait_s=1.0)
    assert spawned(made) == [("a1", "failed", 1)]
    run, items = batch("a1", "a2", max_attempts=1)
    assert spawned(spawn_failed(run, items, failures(items, "a1"), 1.0)) == [("a1", "failed", 1)]


@pytest.mark.parametrize(("asked", "waits"), [(7, 7.0), (0, 0.001), (-1, 0.001)])
def test_an_item_chooses_its_own_wait(asked: float, waits: float) -> None:
    run, items = batch("a1")
    for failed in (
        failures(items, "a1", retry_after_s=asked),
        [ItemFailure(items[0].change, RetryAfter(asked))],
    ):
        [made] = spawn_failed(run, items, failed, wait_s=99.0)
        assert made.delay_s == waits


def test_a_change_that_is_none_of_the_batchs_own_is_refused() -> None:
    run, items = batch("a1")
    foreign = ItemFailure(replace(items[0].change), ValueError())
    with pytest.raises(ValueError, match="not one of the batch's own"):
        spawn_failed(run, items, [foreign], wait_s=1.0)


def test_held_items_queue_in_order_with_no_attempt_made() -> None:
    run, items = batch("a1", "a2")
    assert spawned(spawn_held(run, items)) == [("a1", "queued", 0), ("a2", "queued", 0)]


@pytest.mark.parametrize("asked", [1e300, float("inf")])
def test_no_wait_is_longer_than_a_time_can_be(asked: float) -> None:
    assert failure_of(RetryAfter(asked)).wait_s == MAX_WAIT_S


@pytest.mark.parametrize("asked", [float("nan"), "soon"])
def test_a_wait_that_is_no_number_is_none(asked: Any) -> None:
    assert failure_of(RetryAfter(asked, "later")).wait_s in (None, 0.0)


def test_errors_are_stored_within_bounds() -> None:
    error = run_error(ValueError("x" * 100_000))
    assert (len(error.message), len(error.traceback)) == (10_000, 20_000)
