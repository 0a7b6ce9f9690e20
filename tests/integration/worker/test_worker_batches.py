"""Batches in a worker: items that fail alone, halving, and the order of a row's versions."""

from __future__ import annotations

from dataclasses import replace
from secrets import token_hex
from typing import Any

import orjson
import pytest

from tests.integration.run_state import RunState
from tests.integration.worker_thread import Row, message, row_key, working
from triggerkit import AbortRun, BatchResult, Change, ItemFailure, Retry, RetryAfter, Task, task
from triggerkit.runs.run import NewRun

SOON = Retry(max_attempts=2, min_delay_s=0.01, jitter=False)
ITEM_RUNS = "SELECT id FROM triggerkit.runs WHERE item_key IS NOT NULL ORDER BY seq"
POISON = "poison"


def batch_run(of: Task[Any, Any, Any], *messages: dict[str, Any]) -> NewRun:
    """A batch as the webhook route accepts it: one partition's batches one after another."""
    run = of.new_run({"data": list(messages)})
    return replace(run, concurrency_key="consumer/0", source={"consumer": "consumer"})


def texts(batch: list[Change[Row]]) -> list[str]:
    return [change.record.text for change in batch]


def test_a_batch_is_one_call_with_its_changes_in_order(state: RunState) -> None:
    @task
    async def collect(batch: list[Change[Row]]) -> list[str]:
        return texts(batch)

    run = batch_run(collect, message(1, "a"), message(2, "b"), message(1, "c"))
    state.accept(run)
    with working(state, collect):
        [row] = state.wait_for_status("completed", run.id)
    assert (orjson.loads(row["output"]), row["items"]) == (["a", "b", "c"], 3)


def test_an_item_named_as_failed_becomes_a_run_of_its_row_that_later_items_wait_behind(
    state: RunState,
) -> None:
    seen: list[list[str]] = []

    @task(retry=Retry(max_attempts=3, min_delay_s=1.0, jitter=False))
    def picky(batch: list[Change[Row]]) -> BatchResult:
        seen.append(texts(batch))
        first_try = [c for c in batch if c.record.text == "1 v1" and len(seen) == 1]
        failed = [ItemFailure(change, ValueError("not yet")) for change in first_try]
        return BatchResult(output=len(batch), failed=tuple(failed))

    first = batch_run(picky, message(1, "1 v1"), message(2, "2 v1"))
    second = batch_run(picky, message(2, "2 v2"), message(1, "1 v2"))
    third = batch_run(picky, message(1, "1 v3"))
    state.accept(first, second, third)
    with working(state, picky):
        state.wait_for_status("completed", first.id, second.id, third.id)
        item, *behind = state.rows(ITEM_RUNS)
        assert [(state.run(i)["status"], state.run(i)["blocked"]) for i in behind] == [
            ("queued", True),
            ("queued", True),
        ]
        [row, *_] = state.wait_for_status("completed", item, *behind)
    assert seen == [["1 v1", "2 v1"], ["2 v2"], ["1 v1"], ["1 v2"], ["1 v3"]]
    assert (row["attempt"], row["item_key"]) == (2, row_key(1))
    assert row["source"]["batch"] == first.id
    assert (row["source"]["consumer"], row["source"]["key"]) == ("consumer", row_key(1))


def test_a_batch_that_raises_is_retried_whole_then_halved_so_that_the_bad_item_fails_alone(
    state: RunState,
) -> None:
    seen: list[list[str]] = []

    @task(retry=SOON)
    def fragile(batch: list[Change[Row]]) -> int:
        seen.append(texts(batch))
        if POISON in seen[-1]:
            raise ValueError("bad text")
        return len(batch)

    messages = [message(n, POISON if n == 2 else f"{n}") for n in range(4)]
    run = batch_run(fragile, *messages)
    state.accept(run)
    with working(state, fragile):
        [row] = state.wait_for_status("completed", run.id)
        [item] = state.wait_for(lambda: state.rows(ITEM_RUNS))
        [failed] = state.wait_for_status("failed", item)
    assert orjson.loads(row["output"]) == [2, 1]
    whole = ["0", "1", POISON, "3"]
    assert seen == [whole, whole, whole[:2], whole[2:], whole[2:3], whole[3:], whole[2:3]]
    assert (failed["attempt"], failed["error"]["message"]) == (2, "bad text")
    assert "bad text" in failed["error"]["traceback"]


@pytest.mark.parametrize("final", [True, False])
def test_a_later_version_never_ends_up_before_the_failed_one_of_its_row(
    state: RunState, final: bool
) -> None:
    done: list[str] = []
    attempts: list[str] = []

    @task(name=f"ordered_{final}", retry=SOON)
    def ordered(batch: list[Change[Row]]) -> None:
        attempts.extend(texts(batch))
        if "1 v1" in texts(batch) and attempts.count("1 v1") < 4:
            raise AbortRun("hopeless") if final and len(batch) == 1 else ValueError("not yet")
        done.extend(texts(batch))

    run = batch_run(ordered, message(1, "1 v1"), message(2, "2 v1"), message(1, "1 v2"))
    state.accept(run)
    with working(state, ordered):
        state.wait_for_status("completed", run.id)
        state.wait_for(lambda: "1 v2" in done)
        state.wait_for(lambda: {"queued", "retrying", "executing"}.isdisjoint(state.statuses()))
    assert done == (["2 v1", "1 v2"] if final else ["2 v1", "1 v1", "1 v2"])
    assert state.broken_keys() == []


def test_later_versions_in_the_same_batch_are_worked_on_again_behind_a_failed_one(
    state: RunState,
) -> None:
    seen: list[list[str]] = []

    @task(retry=SOON)
    def first_fails(batch: list[Change[Row]]) -> BatchResult:
        seen.append(texts(batch))
        failed = [ItemFailure(batch[0], ValueError("not yet"))] if len(batch) > 1 else []
        return BatchResult(failed=tuple(failed))

    state.accept(run := batch_run(first_fails, message(1, "v1"), message(2, "x"), message(1, "v2")))
    with working(state, first_fails):
        state.wait_for_status("completed", run.id)
        state.wait_for_status("completed", *state.rows(ITEM_RUNS))
    assert seen == [["v1", "x", "v2"], ["v1"], ["v2"]]


def test_retry_after_blames_no_item_and_the_whole_batch_waits_without_using_up_attempts(
    state: RunState,
) -> None:
    seen: list[list[str]] = []

    @task(retry=2)
    def throttled(batch: list[Change[Row]]) -> None:
        seen.append(texts(batch))
        if len(seen) <= 3:
            raise RetryAfter(0, "slow down")

    run = batch_run(throttled, *(message(n, f"{n}") for n in range(4)))
    state.accept(run)
    with working(state, throttled):
        [row] = state.wait_for_status("completed", run.id)
    assert seen == [["0", "1", "2", "3"]] * 4
    assert state.rows(ITEM_RUNS) == []
    assert (row["attempt"], row["waits"]) == (4, 3)


def test_a_failure_that_names_no_change_of_the_batch_is_an_error_of_the_task(
    state: RunState,
) -> None:
    @task(retry=1)
    def confused(batch: list[Change[Row]]) -> BatchResult:
        return BatchResult(failed=(ItemFailure(replace(batch[0]), ValueError("no")),))

    run = batch_run(confused, message(1), message(2))
    state.accept(run)
    with working(state, confused):
        [row] = state.wait_for_status("failed", run.id)
    assert "not one of the batch's own" in row["error"]["message"]


def test_a_row_whose_key_is_longer_than_an_index_row_is_retried_and_held_behind_itself(
    state: RunState,
) -> None:
    key = "".join(token_hex(32) for _ in range(80))
    calls: list[list[str]] = []

    @task(retry=Retry(max_attempts=3, min_delay_s=0.3, jitter=False))
    def picky(batch: list[Change[Row]]) -> BatchResult:
        calls.append(texts(batch))
        failed = [ItemFailure(c, ValueError("not yet")) for c in batch if len(calls) == 1]
        return BatchResult(len(batch), failed)

    messages = [message(1, text) for text in ("v1", "v2")]
    for one in messages:
        one["metadata"]["record_pks"] = [key]
    first, second = (batch_run(picky, one) for one in messages)
    state.accept(first, second)
    with working(state, picky):
        state.wait_for_status("completed", first.id, second.id)
        items = state.rows(ITEM_RUNS)
        rows = state.wait_for_status("completed", *items)
    assert calls == [["v1"], ["v1"], ["v2"]]
    assert [row["source"]["key"] for row in rows] == [f'public.posts:["{key}"]'] * 2
    assert rows[0]["full_keys"]["item_key"] == f'public.posts:["{key}"]'
