"""Runs and tasks through the API: looked at, canceled, replayed."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import psycopg
from pydantic import AwareDatetime, BaseModel, Field, model_validator

from triggerkit.configuration.moments import seconds_until
from triggerkit.errors import ConfigurationError, UnknownRun
from triggerkit.runs.admin.browse import list_runs, show_run, summaries_of
from triggerkit.runs.admin.control import cancel_run, cancel_runs, reschedule_run
from triggerkit.runs.admin.error_groups import group_errors
from triggerkit.state.reading import Reads
from triggerkit.tasks.replay import Edited, Replayer
from triggerkit.web.api.executed.run_models import Run, RunSummary, Text, Wanted, WantedPage
from triggerkit.web.api.executed.triggers import Moment
from triggerkit.web.api.operation import ACTOR, Call, Given, Page

#: Most runs that one request cancels or replays.
MOST_AT_ONCE = 10_000

#: Longest delay that is set by hand: a hundred years.
MOST_DELAY_S = 100 * 366 * 86_400


class TaskInfo(BaseModel):
    """A task that `serve` knows; `route` is its webhook's path, and `tables` what it follows, where
    it has `on=`."""

    name: str
    queue: str
    max_attempts: int
    route: str | None
    tables: list[str]


class ReplayOf(Given):
    """The payload of the new run: the old one's, or another, or, with `current`, a message of
    each of its rows as it is now."""

    payload: Any = None
    current: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> ReplayOf:
        if self.current and "payload" in self.model_fields_set:
            raise ValueError("payload and current cannot be combined")
        return self


class Rescheduled(Given):
    """When a run starts: so many seconds from now (0 is now), or at a time."""

    delay: Annotated[float, Field(ge=0, le=MOST_DELAY_S, allow_inf_nan=False)] | Moment


class RunHandle(BaseModel):
    """The run that was made."""

    id: str
    task: str


class CanceledRuns(BaseModel):
    """Counts of waiting runs that were canceled, and of executing ones that their workers stop.
    With `next`, `cursor` asks for what follows."""

    canceled: int
    asked: int
    next: str | None = None


class ReplayedRuns(BaseModel):
    """Counts of runs that were made, and of those that could not be, with the first one's error.
    With `next`, `cursor` asks for what follows."""

    runs: int
    refused: int
    refusal: str | None
    next: str | None


class Several(Wanted):
    """The runs it is done to: those that fit all that is given; all of them need `all`."""

    all: bool = False
    limit: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] = MOST_AT_ONCE
    cursor: Annotated[str | None, Field(pattern=r"^run_\w{1,40}(/run_\w{1,40})?$")] = None

    @model_validator(mode="after")
    def _not_by_mistake(self) -> Several:
        if self.filter().is_empty and not self.all:
            raise ValueError("give a filter, or all")
        return self


class SeveralReplayed(Several):
    """The runs to replay, and whether with their rows as they are now."""

    current: bool = False


class ErrorFilter(Given):
    """Whose errors are shown: of runs accepted since then, of one task."""

    since: AwareDatetime | None = None
    task: Text | None = None


class RunErrors(BaseModel):
    """Runs that ended by one type of error at one place. `place` is the project's own last frame.
    `message` and `run_id` are the last one's."""

    type: str
    place: str | None
    message: str
    count: int
    first_at: datetime
    last_at: datetime
    run_id: str
    tasks: list[str]


async def list_all_runs(call: Call, query: WantedPage) -> Page[RunSummary]:
    """Runs without payloads and outputs, newest first."""
    async with call.state() as state:
        found, following = await list_runs(
            state, query.filter(), limit=query.limit, after=query.cursor
        )
    return Page(data=[RunSummary.model_validate(row) for row in found], next=following)


async def show_one_run(call: Call, id: str) -> Run:  # noqa: A002 - the path's name
    """Return one run whole, with its payload, its output, its attempts and what it said."""
    async with call.state() as state:
        return await run_of(state, id)


async def run_of(state: Reads, id: str) -> Run:  # noqa: A002
    """Return one run whole, as it is read of `state`.

    Raises:
        UnknownRun: there is none of this id.
    """
    found = await show_run(state, id)
    if found is None:
        raise UnknownRun(f"no run has the id {id!r}; see GET /api/v1/runs")
    return Run.model_validate(found)


async def cancel_one_run(call: Call, id: str) -> CanceledRuns:  # noqa: A002
    """Cancel a run: one that waits at once; one that executes is stopped by its worker, within a
    second or so. One that has ended is a 409."""
    return CanceledRuns(**asdict(await cancel_run(call.client, id, ACTOR)))


async def reschedule_one_run(call: Call, id: str, body: Rescheduled) -> RunSummary:  # noqa: A002
    """Have a run that waits start, or be tried again, at another time. One that executes or has
    ended is a 409."""
    delay = body.delay
    try:
        delay_s = delay if isinstance(delay, float) else seconds_until(delay)
    except ValueError as error:
        raise ConfigurationError(f"delay: {error}") from None
    await reschedule_run(call.client, id, delay_s, ACTOR)
    async with call.state() as state:
        [found] = await summaries_of(state, [id])
    return RunSummary.model_validate(found)


async def replay_one_run(call: Call, id: str, body: ReplayOf) -> RunHandle:  # noqa: A002
    """Make a new run of an old one, with the same payload, another, or the current rows. A payload
    that its task does not take is a 422."""
    edited = Edited(body.payload) if "payload" in body.model_fields_set else None
    async with AsyncExitStack() as stack:
        handle = await _replayer(call).replay(id, edited, await _source(call, stack, body.current))
    return RunHandle(id=handle.id, task=handle.task)


async def cancel_several(call: Call, body: Several) -> CanceledRuns:
    """Cancel the unfinished runs that fit, newest first."""
    done = await cancel_runs(call.client, body.filter(), ACTOR, most=body.limit, after=body.cursor)
    return CanceledRuns(**asdict(done))


async def replay_several(call: Call, body: SeveralReplayed) -> ReplayedRuns:
    """Make new runs of the finished ones that fit, oldest first."""
    async with AsyncExitStack() as stack:
        done = await _replayer(call).replay_all(
            body.filter(),
            current=await _source(call, stack, body.current),
            most=body.limit,
            cursor=body.cursor,
        )
    return ReplayedRuns(runs=done.runs, refused=done.refused, refusal=done.refusal, next=done.next)


async def list_errors(call: Call, query: ErrorFilter) -> Page[RunErrors]:
    """Return the errors of runs that ended as failed, crashed or timed_out, by type and place,
    those with most runs first; the newest 5,000 runs of each status are looked at."""
    async with call.state() as state:
        found = await group_errors(state, since=query.since, task=query.task)
    return Page(data=[RunErrors(**asdict(group)) for group in found])


async def list_tasks(call: Call) -> Page[TaskInfo]:
    """Return the tasks that this `serve` found, by name."""
    return Page(
        data=[
            TaskInfo(
                name=task.name,
                queue=task.queue,
                max_attempts=task.retry.max_attempts,
                route=task.path if task.has_route else None,
                tables=list(task.on.tables) if task.on else [],
            )
            for task in sorted(call.tasks, key=lambda task: task.name)
        ]
    )


def _replayer(call: Call) -> Replayer:
    return Replayer(call.client, {task.name: task for task in call.tasks}, ACTOR)


async def _source(
    call: Call, stack: AsyncExitStack, wanted: bool
) -> psycopg.AsyncConnection | None:
    return await stack.enter_async_context(call.source()) if wanted else None
