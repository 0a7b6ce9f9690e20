"""Batches: their items, and the runs of single items that fail in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from triggerkit.message import BatchResult, Change, ItemFailure
from triggerkit.runs.run import ClaimedRun, NewRun, RunError
from triggerkit.worker.payload import PayloadType


@dataclass(frozen=True, slots=True, eq=False)
class BatchItem:
    """One message of a batch: as it came, and as the task gets it."""

    raw: dict[str, Any]
    change: Change[Any]


def read_items(run: ClaimedRun, payload_type: PayloadType) -> list[BatchItem]:
    """The items of a batch run, in order."""
    messages = orjson.loads(run.payload)["data"]
    return [BatchItem(raw, payload_type.parse(raw)) for raw in messages]


def bisect(items: list[BatchItem], call: Callable[[list[BatchItem]], Any]) -> BatchResult:
    """Call with ever smaller halves, in order, so that only items that fail alone are left.

    An item that fails stays before the later ones of its row: those are not tried in this batch.
    """
    failed: list[ItemFailure] = []
    outputs: list[Any] = []
    parts = [items[: len(items) // 2], items[len(items) // 2 :]]
    while parts:
        rows = {failure.change.key for failure in failed}
        part = [item for item in parts.pop(0) if item.change.key not in rows]
        if not part:
            continue
        try:
            result = call(part)
        except Exception as error:
            if len(part) == 1:
                failed.append(ItemFailure(part[0].change, error))
                failed += _behind(part[0], items)
            else:
                parts[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
            continue
        if isinstance(result, BatchResult):
            failed += result.failed
            result = result.output
        outputs.append(result)
    return BatchResult(outputs, tuple(failed))


def _behind(item: BatchItem, items: list[BatchItem]) -> list[ItemFailure]:
    later = items[items.index(item) + 1 :]
    waits = RuntimeError("waits behind a failed change of its row")
    return [ItemFailure(i.change, waits) for i in later if i.change.key == item.change.key]


def spawn_held(run: ClaimedRun, items: Sequence[BatchItem]) -> tuple[NewRun, ...]:
    """Runs for items whose row has a failed item before them: they queue behind it."""
    return tuple(_item_run(run, item) for item in items)


def spawn_failed(
    run: ClaimedRun, items: Sequence[BatchItem], failed: Sequence[ItemFailure], wait_s: float
) -> tuple[NewRun, ...]:
    """Runs for the failed items of a batch, each with its first attempt made already."""
    by_change = {id(item.change): item for item in items}
    made = []
    for failure in failed:
        error = RunError(type(failure.error).__name__, str(failure.error)[:10_000], "")
        made.append(
            _item_run(
                run,
                by_change[id(failure.change)],
                error=error,
                failed=failure.permanent or run.max_attempts <= 1,
                delay_s=max(
                    0.001, wait_s if failure.retry_after_s is None else failure.retry_after_s
                ),
            )
        )
    return tuple(made)


def _item_run(
    run: ClaimedRun,
    item: BatchItem,
    *,
    error: RunError | None = None,
    failed: bool = False,
    delay_s: float = 0.0,
) -> NewRun:
    key = item.change.key
    metadata = item.change.metadata
    source = {**(run.source or {}), "position": metadata.position, "key": key, "batch": run.id}
    return NewRun(
        task=run.task,
        queue=run.queue,
        max_attempts=run.max_attempts,
        payload=orjson.dumps({"data": [item.raw]}),
        items=1,
        concurrency_key=f"row/{key}",
        item_key=key,
        source=source,
        delay_s=0.0 if failed else delay_s,
        attempt=1 if error else 0,
        error=error,
        failed=failed,
    )
