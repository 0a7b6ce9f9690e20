"""Runs and tasks through the API: what was accepted, and what can be."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from triggerkit.runs.browse import MAX_LIMIT, list_runs, show_run
from triggerkit.runs.run import Status
from triggerkit.web.api.operation import Call, Given, Page
from triggerkit.web.api.problems import NotFound


class Task(BaseModel):
    """A task that `serve` knows; `route` is its webhook's path, and `tables` what it follows, where
    it has `on=`."""

    name: str
    queue: str
    max_attempts: int
    route: str | None
    tables: list[str]


class RunFailure(BaseModel):
    """Why the last attempt failed."""

    type: str
    message: str
    traceback: str


class RunSummary(BaseModel):
    """A run without its payload and output; `reason` says why it is not running."""

    id: str
    task: str
    queue: str
    status: Status
    reason: str | None
    attempt: int
    max_attempts: int
    crashes: int
    items: int | None
    error: RunFailure | None
    idempotency_key: str | None
    concurrency_key: str | None
    tags: list[str]
    metadata: dict[str, Any]
    source: dict[str, Any] | None
    created_at: datetime
    scheduled_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    version: str | None
    replay_of: str | None


class RunAttempt(BaseModel):
    """One try of a run."""

    attempt: int
    status: str
    started_at: datetime
    finished_at: datetime
    worker: str
    error: RunFailure | None


class Run(RunSummary):
    """A run whole, with its attempts."""

    payload: Any
    output: Any
    attempts: list[RunAttempt]


class RunFilter(Given):
    """Which runs are listed."""

    task: str | None = None
    status: Status | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 20


async def list_all_runs(call: Call, query: RunFilter) -> Page[RunSummary]:
    """The latest runs, newest first, without payloads and outputs."""
    async with call.state() as state:
        found = await list_runs(state, task=query.task, status=query.status, limit=query.limit)
    return Page(data=[RunSummary.model_validate(row) for row in found])


async def show_one_run(call: Call, id: str) -> Run:  # noqa: A002 - the path's name
    """One run whole, with its payload, its output and its attempts."""
    async with call.state() as state:
        found = await show_run(state, id)
    if found is None:
        raise NotFound(f"no run has the id {id!r}; GET /api/v1/runs lists them")
    return Run.model_validate(found)


async def list_tasks(call: Call) -> Page[Task]:
    """The tasks that this `serve` found, by name."""
    return Page(
        data=[
            Task(
                name=task.name,
                queue=task.queue,
                max_attempts=task.retry.max_attempts,
                route=task.path if task.on else None,
                tables=list(task.on.tables) if task.on else [],
            )
            for task in sorted(call.tasks, key=lambda task: task.name)
        ]
    )
