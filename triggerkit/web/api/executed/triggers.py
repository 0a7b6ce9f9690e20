"""Triggering tasks through the API."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import AwareDatetime, BaseModel, Field

from triggerkit.errors import (
    ConfigurationError,
    FieldProblem,
    InvalidPayload,
    UnknownTask,
    suggested,
)
from triggerkit.runs.run import NewRun, RunRef
from triggerkit.tasks.task import Task
from triggerkit.tasks.triggering import Debounce, TriggerOptions
from triggerkit.web.api.operation import Call, Given

#: Most runs that one request makes.
MOST_ITEMS = 1000

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

#: A time as text: a number would be one since 1970, and -1 no wrong delay.
Moment = Annotated[AwareDatetime, Field(strict=True)]

Key = Annotated[str, Field(min_length=1)]


class DebounceOptions(Given):
    """Triggers of one key that follow each other closely make one run, with the last payload."""

    key: Key
    delay: Seconds
    maximum: Seconds | None = None


class Options(Given):
    """The options of a trigger, as in Python; times are in seconds, `delay` may be a moment."""

    delay: Seconds | Moment | None = None
    ttl: Seconds | None = None
    queue: str | None = None
    max_attempts: int | None = None
    concurrency_key: Key | None = None
    idempotency_key: Key | None = None
    idempotency_ttl: Seconds | None = None
    debounce: DebounceOptions | None = None
    priority: int | None = None
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None

    def as_asked(self) -> TriggerOptions:
        """Return the options that are set."""
        options: dict[str, Any] = {
            name: value
            for name in type(self).model_fields
            if (value := getattr(self, name)) is not None
        }
        if self.debounce is not None:
            debounce = self.debounce
            options["debounce"] = Debounce(debounce.key, debounce.delay, debounce.maximum)
        return cast("TriggerOptions", options)


class Trigger(Given):
    """A payload, as the task takes it, and how its run is to be executed."""

    payload: Any = None
    options: Options = Options()


class Triggers(Given):
    """Several payloads, each with options of its own. All are accepted or none."""

    items: Annotated[list[Trigger], Field(min_length=1, max_length=MOST_ITEMS)]


class Triggered(BaseModel):
    """The run that was made, or, as a `duplicate`, the one that its key belongs to."""

    id: str
    task: str
    duplicate: bool = False


class TriggeredRuns(BaseModel):
    """The runs, in the order of the items."""

    data: list[Triggered]


async def trigger_task(call: Call, name: str, body: Trigger) -> Triggered:
    """Make a run of a task. It is durable when this is answered."""
    run = _task(call, name).new_run(body.payload, body.options.as_asked())
    [handle] = await call.client.accept([run])
    return _triggered(handle)


async def trigger_many(call: Call, name: str, body: Triggers) -> TriggeredRuns:
    """Make several runs of a task; a payload that does not fit refuses all, by its place."""
    task = _task(call, name)
    runs = [_run_of(task, place, item) for place, item in enumerate(body.items)]
    return TriggeredRuns(data=[_triggered(handle) for handle in await call.client.accept(runs)])


def _run_of(task: Task[Any, Any, Any], place: int, item: Trigger) -> NewRun:
    if item.options.debounce is not None:
        raise ConfigurationError("debounce works only with a single trigger")
    try:
        return task.new_run(item.payload, item.options.as_asked())
    except InvalidPayload as error:
        placed = [FieldProblem((place, *p.loc), p.msg) for p in error.problems]
        raise InvalidPayload(placed) from None


def _task(call: Call, name: str) -> Task[Any, Any, Any]:
    task = next((task for task in call.tasks if task.name == name), None)
    if task is None:
        meant = suggested(name, [task.name for task in call.tasks])
        raise UnknownTask(f"no task is named {name!r} here{meant or ';'} see GET /api/v1/tasks")
    return task


def _triggered(handle: RunRef) -> Triggered:
    return Triggered(id=handle.id, task=handle.task, duplicate=handle.duplicate)
