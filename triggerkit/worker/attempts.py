"""Begin and end attempts: their outcomes are written and logged."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from triggerkit.errors import repr_of
from triggerkit.failpoints import reach
from triggerkit.runs.admin.error_groups import place_of
from triggerkit.runs.run import ClaimedRun, Outcome
from triggerkit.tasks.task import Task
from triggerkit.terminal.console import counted
from triggerkit.worker.attempt import Attempt, TimedOut
from triggerkit.worker.completions import Completions
from triggerkit.worker.execute import Executor
from triggerkit.worker.failure import broken_outcome, stopped_outcome
from triggerkit.worker.fetch.duration_estimate import DurationEstimate
from triggerkit.worker.telemetry.journal import Journal
from triggerkit.worker.watchdog import Watchdog

logger = logging.getLogger("triggerkit.runs")

#: Longest message of an error in a line of the log, in characters.
MAX_MESSAGE = 500


class Attempts:
    """The attempts of a process, from their beginning to their outcome."""

    def __init__(
        self,
        executors: dict[str, tuple[Task[Any, Any, Any], Executor]],
        completions: Completions,
        journal: Journal,
        replace: Callable[[], None],
    ) -> None:
        """`replace` is called when an attempt does not end: its process is of no more use."""
        self._executors = executors
        self._completions = completions
        self._journal = journal
        self._replace = replace
        self.durations = DurationEstimate()
        self.watchdog = Watchdog(self._abandon)
        #: Called with an attempt that was given up, to free its slot.
        self.abandoned: Callable[[Attempt], None] = lambda _: None
        #: Called with the id of each run whose attempt has ended.
        self.ended: Callable[[str], None] = lambda _: None

    def execute(self, run: ClaimedRun) -> bool:
        """Make an attempt of a sync task's run on this thread, and have its outcome written.

        Returns False when the attempt was given up before it ended; its slot is free since then.
        """
        attempt, executor = self._begin(run)
        started = time.monotonic()
        try:
            outcome = executor.execute(attempt)
        except BaseException as error:
            outcome = broken_outcome(run, error)
        return self._end(attempt, outcome, time.monotonic() - started)

    async def aexecute(self, run: ClaimedRun) -> bool:
        """Do the same of an async task's run on this event loop."""
        attempt, executor = self._begin(run)
        started = time.monotonic()
        try:
            outcome = await executor.aexecute(attempt)
        except BaseException as error:
            outcome = broken_outcome(run, error)
        return self._end(attempt, outcome, time.monotonic() - started)

    def _begin(self, run: ClaimedRun) -> tuple[Attempt, Executor]:
        task, executor = self._executors[run.task]
        limit_s = task.max_duration_s
        attempt = Attempt(run, None if limit_s is None else time.monotonic() + limit_s)
        self.watchdog.begins(attempt)
        return attempt, executor

    def _end(self, attempt: Attempt, outcome: Outcome, seconds: float) -> bool:
        """Have the outcome written; False when the attempt was given up before."""
        reach("effect-done")
        self.durations.took(attempt.run.task, seconds)
        if not self.watchdog.ends(attempt):
            return False
        self._write(outcome, seconds)
        return True

    def _abandon(self, attempt: Attempt) -> None:
        outcome = attempt.outcome
        if outcome is None:
            task, _ = self._executors[attempt.run.task]
            reason = attempt.reason or TimedOut
            outcome = stopped_outcome(attempt.run, reason, task.max_duration_s)
        self._write(outcome, 0.0)
        self._replace()
        self.abandoned(attempt)

    def _write(self, outcome: Outcome, seconds: float) -> None:
        self._completions.put(outcome)
        self.ended(outcome.run.id)
        try:
            self._journal.close(outcome.run.id, outcome.run.attempt, datetime.now(UTC))
            _log(outcome, seconds * 1000)
        except BaseException as error:  # a handler or filter of the project's, whatever it raises
            with contextlib.suppress(Exception):
                print(f"{outcome.run.id} cannot be told of: {repr_of(error)}", file=sys.__stderr__)


def _log(outcome: Outcome, ms: float) -> None:
    level = logging.INFO if outcome.status == "completed" else logging.WARNING
    if outcome.away:
        # Of what all runs of a task wait for, it is told once.
        level = logging.DEBUG
    if not logger.isEnabledFor(level):
        return
    run = outcome.run
    facts = {
        "event": "run",
        "run": run.id,
        "task": run.task,
        "queue": run.queue,
        "status": outcome.status,
        "attempt": run.attempt,
        "max_attempts": run.max_attempts,
        "items": run.items,
        "key": run.item_key or (run.source or {}).get("key"),
        "ms": round(ms, 1),
        "retry_in_s": outcome.retry_in_s,
        "error": outcome.error.as_json() if outcome.error else None,
        "failed_items": sum(item.error is not None for item in outcome.spawned),
    }
    text = f"{run.task} {run.id} {outcome.status} in {ms:.0f} ms"
    if outcome.status != "completed":
        text += _why(outcome, facts["key"])
    # Made by us, since a logger looks for its caller first, which is always this one.
    logger.handle(
        logger.makeRecord(
            logger.name, level, __file__, 0, "%s", (text,), None, extra={"facts": facts}
        )
    )


def _why(outcome: Outcome, key: object) -> str:
    """Return what a person needs to know of an attempt that did not succeed, in one line."""
    error, parts = outcome.error, []
    if error is not None:
        first = (error.message.strip().splitlines() or [""])[0][:MAX_MESSAGE]
        parts.append(f"{error.type}: {first}" if first else error.type)
        if place := place_of(error.traceback):
            parts.append(f"at {place}")
    if key is not None:
        parts.append(f"row {key}")
    elif outcome.run.items is not None:
        parts.append(counted(outcome.run.items, "change"))
    if outcome.retry_in_s is not None:
        run = outcome.run
        parts.append(f"retry in {outcome.retry_in_s:.1f} s ({run.attempt}/{run.max_attempts})")
    return f": {', '.join(parts)}" if parts else ""
