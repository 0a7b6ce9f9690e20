"""Executing one attempt of a run: the call, and what its result or exception means."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import orjson
from pydantic_core import to_jsonable_python

from triggerkit.errors import AbortRun, RetryAfter, text_of
from triggerkit.message import BatchResult
from triggerkit.runs.otel import otel_attempt, otel_failed
from triggerkit.runs.run import ClaimedRun, NewRun, Outcome, short_key
from triggerkit.tasks.context import Notes, RunContext, running
from triggerkit.tasks.function import check_result
from triggerkit.tasks.payload.encode import number_for_json
from triggerkit.tasks.task import Task
from triggerkit.worker.attempt import Attempt, Canceled, HandedBack, Stopped
from triggerkit.worker.batch import (
    BatchItem,
    bisect,
    fitted,
    item_failure,
    read_items,
    spawn_failed,
    spawn_held,
)
from triggerkit.worker.failure import (
    Failure,
    failure_of,
    run_error,
    stopped_outcome,
    verdict_in,
)
from triggerkit.worker.fetch.slots import Slots
from triggerkit.worker.hooks import call_hooks
from triggerkit.worker.telemetry.output import finish_lines

logger = logging.getLogger(__name__)

#: Outputs larger than this are not stored.
MAX_OUTPUT_BYTES = 1024 * 1024

#: Runs a coroutine to its end on the worker's event loop, from another thread.
RunAsync = Callable[[Coroutine[Any, Any, Any]], Any]


class Executor:
    """Executes runs of one task."""

    def __init__(
        self,
        task: Task[Any, Any, Any],
        notes: Notes,
        run_async: RunAsync,
        slots: Slots | None = None,
    ) -> None:
        self._task = task
        self._notes = notes
        self._run_async = run_async
        self._slots = slots
        self._pid = os.getpid()

    def execute(self, attempt: Attempt) -> Outcome:
        """Make one attempt of a sync task on this thread."""
        try:
            attempt.enter_thread()
            # Context variables that the task sets are its own: the thread executes other runs, too.
            return contextvars.copy_context().run(self._execute, attempt)
        except BaseException as error:
            attempt.leave()
            return self._broken(attempt, error)

    async def aexecute(self, attempt: Attempt) -> Outcome:
        """Make one attempt of an async task on this event loop."""
        try:
            attempt.enter_task()
            return await self._executed(attempt)
        except BaseException as error:
            attempt.leave()
            return self._broken(attempt, error)

    def _execute(self, attempt: Attempt) -> Outcome:
        executing = self._executed(attempt)
        try:
            # Nothing that a sync task has called waits in the coroutine, so that one step ends it.
            executing.send(None)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        raise AssertionError("a sync task cannot wait on an event loop")

    async def _executed(self, attempt: Attempt) -> Outcome:
        """Make one attempt. Whatever the task raises becomes part of the outcome."""
        run = attempt.run
        context = RunContext(run, self._notes, self._slots)
        attempt.is_waiting = lambda: context.is_waiting
        token = running.set(context)
        try:
            with otel_attempt(run):
                return await self._attempted(attempt, context)
        finally:
            with contextlib.suppress(Exception):
                finish_lines()
            running.reset(token)

    def _broken(self, attempt: Attempt, error: BaseException) -> Outcome:
        """Return the outcome where what is around the task's code failed or was stopped."""
        if attempt.outcome is not None:
            return attempt.outcome
        if attempt.reason is not None:
            return self._stopped(attempt.run, attempt.reason)
        return self._failed(attempt.run, self._failure(error))

    async def _attempted(self, attempt: Attempt, context: RunContext) -> Outcome:
        run = attempt.run
        error: BaseException | None = None
        try:
            try:
                if self._task.hooks.start:
                    await call_hooks(self._task.hooks, "start", self._invoke, context)
                outcome = await self._made(run)
            finally:
                if os.getpid() != self._pid:
                    # The task has forked, and this is the child: it must not go on as a worker.
                    os._exit(0)
                attempt.leave()
        except BaseException as raised:
            error = raised
            outcome = self._ended_by(error, attempt)
        if self._task.hooks.any_at_end and attempt.reason is not HandedBack:
            await self._call_hooks(attempt, outcome, context, error)
        return attempt.outcome or outcome

    async def _made(self, run: ClaimedRun) -> Outcome:
        run = fitted(run, self._task.payload_type.shape)
        if run.items is None:
            payload = self._task.payload_type.read(run.payload)
            if self._task.payload_type.shape == "none":
                return _completed(run, await self._invoke(self._task.function))
            return _completed(run, await self._invoke(self._task.function, payload))
        return await self._made_batch(run)

    def _ended_by(self, error: BaseException, attempt: Attempt) -> Outcome:
        if attempt.reason is not None:
            otel_failed(attempt.reason.__name__)
            return self._stopped(attempt.run, attempt.reason)
        otel_failed(text_of(error))
        return self._failed(attempt.run, self._failure(error))

    async def _call_hooks(
        self, attempt: Attempt, outcome: Outcome, context: RunContext, error: BaseException | None
    ) -> None:
        """Call what follows the task's code. A hook that is stopped changes no outcome."""
        attempt.enter_hooks(outcome, time.monotonic())
        try:
            if error is None:
                if outcome.status == "completed":
                    output = None if outcome.output is None else orjson.loads(outcome.output)
                    await call_hooks(self._task.hooks, "success", self._invoke, context, output)
            elif attempt.reason is Canceled:
                await call_hooks(self._task.hooks, "cancel", self._invoke, context)
            else:
                if attempt.reason is None:
                    decided = await self._decided(error, context)
                    outcome = self._failed(attempt.run, self._failure(error, decided))
                    attempt.outcome = outcome
                if outcome.status != "retrying":
                    await call_hooks(self._task.hooks, "failure", self._invoke, context, error)
        except BaseException:
            if attempt.stopped_at is None:
                raise
            context.log("the hooks were stopped: their time was over, or it was canceled", "error")
        finally:
            attempt.leave()

    def _failure(self, error: BaseException, decided: BaseException | None = None) -> Failure:
        try:
            away = decided is None and self._task.retry.waits_for(error)
            return failure_of(error, decided=decided, away=away)
        except BaseException:
            # Its class breaks whoever looks at it: then it is an error like any other.
            return Failure(run_error(error), final=False, wait_s=None)

    def _stopped(self, run: ClaimedRun, reason: type[Stopped]) -> Outcome:
        return stopped_outcome(run, reason, self._task.max_duration_s)

    async def _decided(self, error: BaseException, context: RunContext) -> BaseException | None:
        """Return a hook's decision about the error."""
        if not self._task.hooks.error:
            return None
        answers = await call_hooks(self._task.hooks, "error", self._invoke, context, error)
        return next((a for a in answers if isinstance(a, AbortRun | RetryAfter)), None)

    async def _invoke(self, function: Callable[..., Any], *given: Any) -> Any:
        result = function(*given)
        if result is not None and inspect.isawaitable(result):
            result = await result if self._task.is_async else self._run_async(awaited(result))
        check_result(result)
        return result

    async def _made_batch(self, run: ClaimedRun) -> Outcome:
        items = read_items(run, self._task.payload_type)
        ready = items
        spawned: tuple[NewRun, ...] = ()
        if rows_held := {row for row in run.held_rows if row != run.item_key}:
            ready = [item for item in items if short_key(item.row) not in rows_held]
            spawned = spawn_held(run, [item for item in items if short_key(item.row) in rows_held])
        if not ready:
            return _completed(run, None, spawned)
        return self._completed_batch(run, ready, await self._call_batch(run, ready), spawned)

    async def _call_batch(self, run: ClaimedRun, items: list[BatchItem]) -> Any:
        try:
            return await self._call_items(items)
        except Exception as error:
            is_whole = verdict_in(error) is not None or self._task.retry.waits_for(error)
            if len(items) == 1 or not run.is_last_attempt or is_whole:
                raise
            logger.warning(
                "%s fails as a batch (%s); trying halves", run.task, type(error).__name__
            )
            return await bisect(run, items, self._call_items, self._task.retry.waits_for)

    async def _call_items(self, items: list[BatchItem]) -> Any:
        return await self._invoke(self._task.function, [item.change for item in items])

    def _completed_batch(
        self, run: ClaimedRun, items: list[BatchItem], result: Any, spawned: tuple[NewRun, ...]
    ) -> Outcome:
        if not isinstance(result, BatchResult):
            return _completed(run, result, spawned)
        if run.item_key is not None and len(result.failed) == len(items):
            # A run of one row failed again: it is retried as itself, not as another run.
            [failure, *_] = result.failed
            away = self._task.retry.waits_for(failure.error)
            return self._failed(run, item_failure(run, failure, away=away))
        failed = spawn_failed(run, items, result.failed, self._task.retry.delay_s(1))
        return _completed(run, result.output, (*spawned, *failed))

    def _failed(self, run: ClaimedRun, failure: Failure) -> Outcome:
        waited = failure.wait_s is not None
        if failure.final or (run.is_last_attempt and not waited):
            return Outcome(run, "failed", error=failure.error)
        wait_s = failure.wait_s
        if wait_s is None:
            wait_s = self._task.retry.delay_s(run.attempt - run.waits)
        return Outcome(
            run,
            "retrying",
            error=failure.error,
            retry_in_s=wait_s,
            waited=waited,
            away=failure.away,
        )


async def awaited(result: Awaitable[Any]) -> Any:
    """Return the result of anything that can be awaited."""
    return await result


def _completed(run: ClaimedRun, result: Any, spawned: tuple[NewRun, ...] = ()) -> Outcome:
    return Outcome(run, "completed", output=_output(run, result), spawned=spawned)


def _output(run: ClaimedRun, result: Any) -> bytes:
    """`result` as JSON, or a note: what was done is done, whether or not it can be shown."""
    if result is None:
        return b"null"
    try:
        output = orjson.dumps(_without_odd_numbers(to_jsonable_python(result, fallback=repr)))
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        why = text_of(error) or type(error).__name__
        logger.warning("the output of %s is not stored: it is not JSON (%s)", run.id, why)
        return orjson.dumps(f"(output not stored: {type(result).__name__} is not JSON)")
    if len(output) > MAX_OUTPUT_BYTES:
        logger.warning("the output of %s (%d bytes) is not stored", run.id, len(output))
        return orjson.dumps(f"(output of {len(output)} bytes not stored)")
    return output


def _without_odd_numbers(value: Any) -> Any:
    """Return the value with numbers that JSON does not have as text, as payloads have them."""
    if isinstance(value, dict):
        return {key: _without_odd_numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_odd_numbers(part) for part in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_for_json(value)
    return value
