"""Runs, queues and schedules in the SDK's shapes and statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from triggerkit.compat.trigger_dev.call import OF_REQUEST
from triggerkit.runs.admin.queues import QueueInfo
from triggerkit.runs.admin.schedules import ScheduleInfo
from triggerkit.runs.run import FINAL, Status

#: What the SDK calls each status. One that waits for its next attempt executes, to the SDK.
STATUSES: Final[dict[Status, str]] = {
    "delayed": "DELAYED",
    "queued": "QUEUED",
    "executing": "EXECUTING",
    "retrying": "EXECUTING",
    "completed": "COMPLETED",
    "failed": "FAILED",
    "crashed": "CRASHED",
    "canceled": "CANCELED",
    "expired": "EXPIRED",
    "timed_out": "TIMED_OUT",
}

#: The one environment there is.
ENVIRONMENT: Final = {"id": "triggerkit", "name": "triggerkit"}

#: Where a run has the batch that it is of in its source, or the request that made it; and what the
#: keys begin with that were made for it, which nobody gave.
BATCH: Final = "trigger_dev_batch"
REQUEST: Final = "trigger_dev_request"
OWN_KEYS: Final = ("batch_", OF_REQUEST)

Row = Mapping[str, Any]


def run_of(row: Row) -> dict[str, Any]:
    """Return what lists and single runs have in common."""
    status: Status = row["status"]
    is_final = status in FINAL
    started, finished = row["started_at"], row["finished_at"]
    batch = (row["source"] or {}).get(BATCH)
    shown = {
        "id": row["id"],
        "status": STATUSES[status],
        "taskIdentifier": row["task"],
        "idempotencyKey": _given_key(row["idempotency_key"]),
        "version": row["version"],
        "isQueued": status in ("queued", "delayed"),
        "isExecuting": status in ("executing", "retrying"),
        "isWaiting": False,
        "isCompleted": is_final,
        "isSuccess": status == "completed",
        "isFailed": is_final and status != "completed",
        "isCancelled": status == "canceled",
        "isTest": False,
        "createdAt": row["created_at"],
        "updatedAt": _updated_at(row),
        "startedAt": started,
        "finishedAt": finished,
        "delayedUntil": row["scheduled_at"] if status == "delayed" else None,
        "expiredAt": finished if status == "expired" else None,
        "tags": sorted(row["tags"]),
        "costInCents": 0,
        "baseCostInCents": 0,
        "durationMs": _milliseconds(started, finished),
        "metadata": row["metadata"],
        "depth": 0 if row["parent_id"] is None else 1,
        "triggerFunction": "trigger" if batch is None else "batchTrigger",
        "batchId": batch,
    }
    return {name: value for name, value in shown.items() if value is not None}


def listed_run(row: Row) -> dict[str, Any]:
    """Return a run of a list."""
    return {**run_of(row), "env": ENVIRONMENT}


def whole_run(row: Row, parent: Row | None, children: Sequence[Row]) -> dict[str, Any]:
    """Return one run with its payload, output and error, and those around it."""
    related: dict[str, Any] = {"children": [run_of(child) for child in children]}
    if parent is not None:
        related["parent"] = run_of(parent)
    shown = run_of(row)
    for name in ("payload", "output"):
        if row[name] is not None:
            shown[name] = row[name]
    if row["error"] is not None and row["status"] != "completed":
        shown["error"] = error_of(row["error"])
    return {**shown, "attemptCount": row["attempt"], "attempts": [], "relatedRuns": related}


def error_of(error: Mapping[str, str]) -> dict[str, str]:
    """Return why an attempt failed."""
    return {"name": error["type"], "message": error["message"], "stackTrace": error["traceback"]}


def queue_of(queue: QueueInfo, kind: str = "custom") -> dict[str, Any]:
    """Return a queue; `kind` says how it was asked for, by its own name or a task's."""
    return {
        "id": f"queue_{queue.name}",
        "name": queue.name,
        "type": kind,
        "running": queue.executing,
        "queued": queue.queued + queue.held,
        "paused": queue.paused_at is not None,
        "concurrencyLimit": queue.concurrency,
        "concurrency": {
            "current": queue.concurrency,
            "base": queue.concurrency,
            "override": None,
            "overriddenAt": None,
            "overriddenBy": None,
        },
        "releaseConcurrencyOnWaitpoint": False,
    }


def schedule_of(schedule: ScheduleInfo) -> dict[str, Any]:
    """Return a schedule, which a task declares in code, or a client made."""
    return {
        "id": schedule.name,
        "type": "DECLARATIVE" if schedule.managed_by == "code" else "IMPERATIVE",
        "task": schedule.task,
        "deduplicationKey": schedule.deduplication_key,
        "externalId": schedule.external_id,
        "active": schedule.paused_at is None,
        "generator": {
            "type": "CRON",
            "expression": schedule.cron,
            "description": f"{schedule.cron} in {schedule.timezone}",
        },
        "timezone": schedule.timezone,
        "nextRun": None if schedule.paused_at else schedule.next_at,
        "environments": [{"id": "triggerkit", "type": "PRODUCTION"}],
    }


def page_of(found: Sequence[Any], page: int, size: int) -> dict[str, Any]:
    """Return a part of a list with its place there."""
    pages = max(1, -(-len(found) // size))
    part = list(found[(page - 1) * size : page * size])
    pagination = {"currentPage": page, "totalPages": pages, "count": len(found)}
    return {"data": part, "pagination": pagination}


def _given_key(key: str | None) -> str | None:
    return None if key is None or key.startswith(OWN_KEYS) else key


def _updated_at(row: Row) -> datetime:
    names = ("created_at", "started_at", "queued_at", "cancel_requested_at", "finished_at")
    moments: list[datetime] = [row[name] for name in names if row[name] is not None]
    return max(moments)


def _milliseconds(started: datetime | None, finished: datetime | None) -> float:
    if started is None or finished is None:
        return 0
    return round((finished - started).total_seconds() * 1000, 3)
