"""Executes attempts in the test's own process, by the executor that a worker has."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from triggerkit.errors import ConfigurationError
from triggerkit.runs.run import ClaimedRun, Outcome
from triggerkit.tasks.context import Notes
from triggerkit.tasks.task import Task
from triggerkit.worker.attempt import Attempt, TimedOut
from triggerkit.worker.event_loop import EventLoopThread
from triggerkit.worker.execute import Executor
from triggerkit.worker.telemetry.output import LineWriter, capture_output


@cache
def _event_loop() -> EventLoopThread:
    """Return the loop of all async tasks: what they keep open on it outlasts a test, as in a
    worker."""
    return EventLoopThread()


def execute(task: Task[Any, Any, Any], run: ClaimedRun, notes: Notes) -> Outcome:
    """Make an attempt: of a sync task on this thread, of an async one on a loop of its own.

    Raises:
        ConfigurationError: an async task has blocked that loop to wait for another.
    """
    with _executing(task, run) as attempt:
        if not task.is_async:
            return _checked(_executor(task, notes).execute(attempt))
        loop = _event_loop()
        if threading.get_ident() == loop.thread_id:
            raise ConfigurationError(
                f"an async task waits for {task.name}, and blocks its event loop by it: "
                "use `await task.atrigger_and_wait(…)`"
            )
        outcome: Outcome = loop.run(_executor(task, notes).aexecute(attempt))
        return _checked(outcome)


async def aexecute(task: Task[Any, Any, Any], run: ClaimedRun, notes: Notes) -> Outcome:
    """Make an attempt: of an async task on this event loop, of a sync one on another thread."""
    with _executing(task, run) as attempt:
        executor = _executor(task, notes)
        if task.is_async:
            return _checked(await asyncio.create_task(executor.aexecute(attempt)))
        return _checked(await asyncio.to_thread(executor.execute, attempt))


def _executor(task: Task[Any, Any, Any], notes: Notes) -> Executor:
    return Executor(task, notes, lambda coroutine: _event_loop().run(coroutine))


@contextmanager
def _executing(task: Task[Any, Any, Any], run: ClaimedRun) -> Iterator[Attempt]:
    attempt = Attempt(run, None)
    with _captured(), _limited(attempt, task.max_duration_s):
        yield attempt


@contextmanager
def _captured() -> Iterator[None]:
    """Record what is printed and logged with the run; the test sees it, too."""
    if isinstance(sys.stdout, LineWriter):
        yield
        return
    release = capture_output(None)
    try:
        yield
    finally:
        release()


@contextmanager
def _limited(attempt: Attempt, seconds: float | None) -> Iterator[None]:
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, lambda: attempt.stop(TimedOut, time.monotonic()))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _checked(outcome: Outcome) -> Outcome:
    # An interrupt is meant for the tests, not for the run.
    if outcome.error is not None and outcome.error.type == KeyboardInterrupt.__name__:
        raise KeyboardInterrupt
    return outcome
