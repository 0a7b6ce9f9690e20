"""Executing one attempt of a run: the call, and what its result or exception means."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic_core import to_jsonable_python

from triggerkit.errors import AbortRun, InvalidPayload, RetryAfter
from triggerkit.message import BatchResult
from triggerkit.runs.run import ClaimedRun, Outcome, RunError
from triggerkit.worker.batch import BatchItem, bisect, read_items, spawn_failed, spawn_held
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
                result = self._call(self._task.payload_type.parse(orjson.loads(run.payload)))
                return self._completed(run, result)
            return self._execute_batch(run)
        except BaseException as error:
            return self._failed(run, error)

    def _call(self, payload: Any) -> Any:
        result = self._task.function(payload)
        return self._run_async(result) if self._task.is_async else result

    def _execute_batch(self, run: ClaimedRun) -> Outcome:
        items = read_items(run, self._task.payload_type)
        held = [i for i in items if i.change.key in run.held_rows and i.change.key != run.item_key]
        ready = [i for i in items if i not in held]
        spawned = spawn_held(run, held)
        if not ready:
            return self._completed(run, None, spawned)
        try:
            result = self._call([item.change for item in ready])
        except AbortRun:
            raise
        except Exception as error:
            if len(ready) == 1 or run.attempt < run.max_attempts:
                raise
            result = self._bisect(ready, error)
        return self._completed_batch(run, ready, result, spawned)

    def _bisect(self, items: list[BatchItem], error: Exception) -> BatchResult:
        logger.warning("%s fails as a batch (%s); trying it in halves", self._task.name, error)
        return bisect(items, lambda part: self._call([item.change for item in part]))

    def _completed_batch(
        self, run: ClaimedRun, items: list[BatchItem], result: Any, spawned: tuple[Any, ...]
    ) -> Outcome:
        if not isinstance(result, BatchResult):
            return self._completed(run, result, spawned)
        if run.item_key is not None and len(result.failed) == len(items):
            # A run of one row failed again: it is retried as itself, not as another run.
            failure = result.failed[0]
            return self._failed(
                run, failure.error, failure.retry_after_s, permanent=failure.permanent
            )
        retry = self._task.retry
        failed = spawn_failed(run, items, result.failed, retry.delay_s(1))
        return self._completed(run, result.output, (*spawned, *failed))

    def _completed(self, run: ClaimedRun, result: Any, spawned: tuple[Any, ...] = ()) -> Outcome:
        output = orjson.dumps(to_jsonable_python(result, fallback=repr))
        if len(output) > MAX_OUTPUT_BYTES:
            logger.warning("the output of %s (%d bytes) is not stored", run.id, len(output))
            output = orjson.dumps(f"(output of {len(output)} bytes not stored)")
        return Outcome(run, "completed", datetime.now(UTC), output=output, spawned=spawned)

    def _failed(
        self,
        run: ClaimedRun,
        error: BaseException,
        retry_after_s: float | None = None,
        *,
        permanent: bool = False,
    ) -> Outcome:
        if isinstance(error, RetryAfter):
            retry_after_s = error.seconds
        final = permanent or isinstance(error, AbortRun | InvalidPayload)
        if final or run.attempt >= run.max_attempts:
            return Outcome(run, "failed", datetime.now(UTC), error=run_error(error))
        wait_s = self._task.retry.delay_s(run.attempt) if retry_after_s is None else retry_after_s
        return Outcome(
            run, "retrying", datetime.now(UTC), error=run_error(error), retry_in_s=wait_s
        )


def run_error(error: BaseException) -> RunError:
    """The error as it is stored with its run, the traceback from the task's own frame on."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/triggerkit/worker/" not in f.filename.replace("\\", "/")]
    shown = "".join(traceback.format_list(own)) + "".join(traceback.format_exception_only(error))
    return RunError(type(error).__name__, str(error)[:10_000], shown[-20_000:])
