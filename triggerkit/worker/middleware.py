"""The Dramatiq middleware that turns a processed message into a written outcome."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import dramatiq
from dramatiq.broker import MessageProxy

from triggerkit.runs.run import ClaimedRun, Outcome
from triggerkit.worker.completions import Completions
from triggerkit.worker.execute import Executor

logger = logging.getLogger("triggerkit.runs")


class RunLifecycle(dramatiq.Middleware):
    """Notes starts and ends of runs, and has their outcomes written."""

    def __init__(self, completions: Completions) -> None:
        self._completions = completions
        self._outcomes: dict[str, Outcome] = {}

    def body_of(self, executor: Executor) -> Any:
        """The function Dramatiq calls for a run: it keeps the outcome for `after_process`."""

        def execute(run: ClaimedRun) -> None:
            self._outcomes[run.id] = executor.execute(run)

        return execute

    def before_process_message(self, broker: dramatiq.Broker, message: MessageProxy) -> None:  # noqa: ARG002
        run: ClaimedRun = message.args[0]
        logger.debug("%s %s started", run.task, run.id)

    def after_process_message(
        self,
        broker: dramatiq.Broker,  # noqa: ARG002
        message: MessageProxy,
        *,
        result: Any = None,  # noqa: ARG002
        exception: BaseException | None = None,  # noqa: ARG002
    ) -> None:
        run: ClaimedRun = message.args[0]
        outcome = self._outcomes.pop(run.id)
        self._completions.put(outcome)
        _log(outcome)


def _log(outcome: Outcome) -> None:
    run = outcome.run
    ms = (datetime.now(UTC) - run.started_at).total_seconds() * 1000
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
        "failed_items": len(outcome.spawned),
    }
    level = logging.INFO if outcome.status == "completed" else logging.WARNING
    logger.log(
        level, "%s %s %s in %.0f ms", run.task, run.id, outcome.status, ms, extra={"facts": facts}
    )
