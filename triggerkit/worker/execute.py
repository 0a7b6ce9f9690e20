"""Executing one attempt of a run: the call, and what its result or exception means."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from pydantic_core import to_jsonable_python

from triggerkit.errors import AbortRun, RetryAfter
from triggerkit.message import BatchResult, ItemFailure
from triggerkit.runs.run import ClaimedRun, NewRun, Outcome
from triggerkit.worker.batch import (
    BatchItem,
    bisect,
    item_failure,
    read_items,
    spawn_failed,
    spawn_held,
)
from triggerkit.worker.failure import Failure, failure_of
from triggerkit.worker.task import Task

logger = logging.getLogger(__name__)

#: Outputs larger than this are not stored.
MAX_OUTPUT_BYTES = 1024 * 1024

#: Runs a coroutine to its end on the worker's event loop.
RunAsync = Callable[[Coroutine[Any, Any, Any]], Any]


class Executor:
    """Executes runs of one task."""

    def __init__(self, task: Task[Any, Any], run_async: RunAsync) -> None:
        self._task = task
        self._run_async = run_async

    def execute(self, run: ClaimedRun) -> Outcome:
        """Make one attempt. Whatever the task raises becomes part of the outcome."""
        try:
            if run.items is None:
                result = self._call(self._task.payload_type.read(run.payload))
                return _completed(run, result)
            return self._execute_batch(run)
        except BaseException as error:
            return self._failed(run, failure_of(error))

    def _call(self, payload: Any) -> Any:
        result = self._task.function(payload)
        return self._run_async(result) if inspect.iscoroutine(result) else result

    def _execute_batch(self, run: ClaimedRun) -> Outcome:
        items = read_items(run, self._task.payload_type)
        ready = items
        spawned: tuple[NewRun, ...] = ()
        if rows_held := {row for row in run.held_rows if row != run.item_key}:
            ready = [item for item in items if item.row not in rows_held]
            spawned = spawn_held(run, [item for item in items if item.row in rows_held])
        if not ready:
            return _completed(run, None, spawned)
        return self._completed_batch(run, ready, self._call_batch(run, ready), spawned)

    def _call_batch(self, run: ClaimedRun, items: list[BatchItem]) -> Any:
        try:
            return self._call_items(items)
        except AbortRun:
            raise
        except Exception as error:
            if len(items) == 1 or run.attempt < run.max_attempts:
                raise
            if isinstance(error, RetryAfter):
                return BatchResult(failed=tuple(ItemFailure(i.change, error) for i in items))
            logger.warning(
                "%s fails as a batch (%s); trying halves", run.task, type(error).__name__
            )
            return bisect(run, items, self._call_items)

    def _call_items(self, items: list[BatchItem]) -> Any:
        return self._call([item.change for item in items])

    def _completed_batch(
        self, run: ClaimedRun, items: list[BatchItem], result: Any, spawned: tuple[NewRun, ...]
    ) -> Outcome:
        if not isinstance(result, BatchResult):
            return _completed(run, result, spawned)
        if run.item_key is not None and len(result.failed) == len(items):
            # A run of one row failed again: it is retried as itself, not as another run.
            return self._failed(run, item_failure(run, result.failed[0]))
        failed = spawn_failed(run, items, result.failed, self._task.retry.delay_s(1))
        return _completed(run, result.output, (*spawned, *failed))

    def _failed(self, run: ClaimedRun, failure: Failure) -> Outcome:
        if failure.final or run.attempt >= run.max_attempts:
            return Outcome(run, "failed", error=failure.error)
        wait_s = self._task.retry.delay_s(run.attempt) if failure.wait_s is None else failure.wait_s
        return Outcome(run, "retrying", error=failure.error, retry_in_s=wait_s)


def _completed(run: ClaimedRun, result: Any, spawned: tuple[NewRun, ...] = ()) -> Outcome:
    return Outcome(run, "completed", output=_output(run, result), spawned=spawned)


def _output(run: ClaimedRun, result: Any) -> bytes:
    """`result` as JSON, or a note: what was done is done, whether or not it can be shown."""
    try:
        output = orjson.dumps(to_jsonable_python(result, fallback=repr))
    except Exception as error:
        logger.warning("the output of %s is not stored: it is not JSON (%s)", run.id, error)
        return orjson.dumps(f"(output not stored: {type(result).__name__} is not JSON)")
    if len(output) > MAX_OUTPUT_BYTES:
        logger.warning("the output of %s (%d bytes) is not stored", run.id, len(output))
        return orjson.dumps(f"(output of {len(output)} bytes not stored)")
    return output
