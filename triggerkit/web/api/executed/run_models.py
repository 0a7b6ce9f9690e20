"""Runs as the API shows them, and as its queries name them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, get_args

from pydantic import AwareDatetime, BaseModel, Field

from triggerkit.runs.admin.browse import MAX_LIMIT
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.run import Status
from triggerkit.web.api.operation import Given

_STATUS = "|".join(get_args(Status))

#: Statuses, joined by commas.
Statuses = Annotated[str, Field(pattern=f"^({_STATUS})(,({_STATUS}))*$")]

Text = Annotated[str, Field(max_length=1000)]


class RunFailure(BaseModel):
    """Why the last attempt failed."""

    type: str
    message: str
    traceback: str


class RunSummary(BaseModel):
    """A run without its payload and output.

    `reason` says why it is not running, and what helps. `waits` counts attempts that use up none of
    `max_attempts`. `queued_at` is when it was last queued; a higher `priority` counts as so many
    seconds earlier.
    """

    id: str
    task: str
    queue: str
    status: Status
    reason: str | None
    attempt: int
    max_attempts: int
    waits: int
    crashes: int
    items: int | None
    error: RunFailure | None
    idempotency_key: str | None
    concurrency_key: str | None
    tags: list[str]
    metadata: dict[str, Any]
    source: dict[str, Any] | None
    priority: int
    created_at: datetime
    scheduled_at: datetime | None
    queued_at: datetime
    expires_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    worker: str | None
    version: str | None
    replay_of: str | None
    parent_id: str | None


class RunAttempt(BaseModel):
    """One try of a run; one that is under way has not finished."""

    attempt: int
    status: str
    started_at: datetime
    finished_at: datetime | None
    worker: str
    error: RunFailure | None


class RunSpan(BaseModel):
    """A named part of an attempt with its times, or a line that it logged or printed: `kind` says
    which. `parent` is the `span_id` of the span around it. Of a line `name` is the text."""

    id: int
    attempt: int
    kind: str
    span_id: str | None
    parent: str | None
    name: str
    level: str | None
    attributes: dict[str, Any]
    error: str | None
    started_at: datetime
    ended_at: datetime | None


class RunChild(BaseModel):
    """A run that this one triggered, or that replays it."""

    id: str
    task: str
    status: Status


class Run(RunSummary):
    """A run whole, with its attempts, what it said, and the runs that it triggered. `replays` are
    the runs that were made of it, the newest first."""

    payload: Any
    output: Any
    attempts: list[RunAttempt]
    spans: list[RunSpan]
    children: list[RunChild]
    replays: list[RunChild]


class Wanted(Given):
    """Runs that fit all that is given. `status` may be several, joined by commas. `key` is a row as
    in `source`, or with `table` the values of its primary key. `error` is the type of the last
    error, `batch` the run that an item was part of, `text` a part of the id."""

    task: Text | None = None
    queue: Text | None = None
    status: Statuses | None = None
    tag: Text | None = None
    consumer: Text | None = None
    table: Text | None = None
    key: Text | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    error: Text | None = None
    schedule: Text | None = None
    batch: Text | None = None
    text: Text | None = None

    def filter(self) -> RunFilter:
        """As the runs are looked for."""
        values = {name: getattr(self, name) for name in Wanted.model_fields if name != "status"}
        statuses: Any = tuple((self.status or "").split(",")) if self.status else ()
        return RunFilter(**values, statuses=statuses)


class WantedPage(Wanted):
    """A selection of runs; `cursor` is the `next` of the part before."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 20
    cursor: Annotated[str | None, Field(max_length=100)] = None
