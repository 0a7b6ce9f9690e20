"""One attempt of a task, with all that comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Unpack

from triggerkit.runs.door import door
from triggerkit.tasks.task import Task
from triggerkit.tasks.triggering import TriggerOptions
from triggerkit.testing.recorded import RecordedRun
from triggerkit.testing.runs import MemoryRuns, memory_runs


def run_task(
    task: Task[Any, Any, Any],
    payload: Any = None,
    /,
    *,
    attempt: int = 1,
    **options: Unpack[TriggerOptions],
) -> RecordedRun:
    """Make one attempt of `task` with `payload`, as a worker does, and return what came of it.

    The payload is validated, written as JSON and read again. Of a task that takes a batch it may be
    one change. `attempt` is the attempt's number. What the task triggers is recorded, and executed
    if it waits for it.

    Raises:
        InvalidPayload: the payload does not fit the parameter's type.
    """
    with _memory() as runs:
        run = runs[task.trigger(_payload(task, payload), **options)]
        run.attempt = attempt - 1
        runs.attempt(run)
        return run


async def arun_task(
    task: Task[Any, Any, Any],
    payload: Any = None,
    /,
    *,
    attempt: int = 1,
    **options: Unpack[TriggerOptions],
) -> RecordedRun:
    """`run_task` for async tests: an async task runs on the test's own event loop."""
    with _memory() as runs:
        run = runs[await task.atrigger(_payload(task, payload), **options)]
        run.attempt = attempt - 1
        await runs.aattempt(run)
        return run


@contextmanager
def _memory() -> Iterator[MemoryRuns]:
    """Yield the runs in memory that are in use, else some for this once."""
    current = door()
    if isinstance(current, MemoryRuns):
        yield current
        return
    with memory_runs() as runs:
        yield runs


def _payload(task: Task[Any, Any, Any], payload: Any) -> Any:
    is_one = task.payload_type.shape == "batch" and not isinstance(payload, list)
    return [payload] if is_one else payload
