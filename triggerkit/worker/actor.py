"""A task as a Dramatiq actor: makes an attempt, has its outcome written, and logs it."""

from __future__ import annotations

import logging
import time

import dramatiq

from triggerkit.failpoints import reach
from triggerkit.runs.run import ClaimedRun, Outcome
from triggerkit.worker.broker import DRAMATIQ_QUEUE, RunBroker
from triggerkit.worker.completions import Completions
from triggerkit.worker.execute import Executor

logger = logging.getLogger("triggerkit.runs")


def declare_actor(
    broker: RunBroker, name: str, executor: Executor, completions: Completions
) -> None:
    """Have `broker`'s workers execute the runs of the task `name`."""

    def execute(run: ClaimedRun) -> None:
        started = time.monotonic()
        logger.debug("%s %s started", run.task, run.id)
        outcome = executor.execute(run)
        reach("effect-done")
        completions.put(outcome)
        _log(outcome, (time.monotonic() - started) * 1000)

    dramatiq.Actor(
        execute,
        broker=broker,
        actor_name=name,
        queue_name=DRAMATIQ_QUEUE,
        priority=0,
        options={},
    )


def _log(outcome: Outcome, ms: float) -> None:
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
    level = logging.INFO if outcome.status == "completed" else logging.WARNING
    logger.log(
        level, "%s %s %s in %.0f ms", run.task, run.id, outcome.status, ms, extra={"facts": facts}
    )
