"""`@task`: declares a function as a task."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.errors import ConfigurationError, DuplicateTask
from triggerkit.runs.schedules import Cron
from triggerkit.tasks.function import check, code_of, name_of
from triggerkit.tasks.queue import Queue
from triggerkit.tasks.retry import Retry
from triggerkit.tasks.task import Prepare, Task
from triggerkit.tasks.triggering import Seconds, checked_priority
from triggerkit.tasks.verification import Verify

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")
O = TypeVar("O")  # noqa: E741 - the output

#: Most runs of one key at a time.
MOST_PER_KEY = 1000

#: Most changes of a push where neither the task nor its consumer says: those that a task gets at
#: once, and single ones, which become a run each, all in one transaction.
BATCH_SIZE = 100
SINGLE_CHANGES = 500

#: The tasks declared by the modules imported so far, by name.
declared: dict[str, Task[Any, Any, Any]] = {}


class Decorator(Protocol):
    """The decorator of `@task(…)`: it makes a task of a function."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[T, P], Coroutine[Any, Any, O]], /
    ) -> Task[T, P, Coroutine[Any, Any, O], O]: ...
    @overload
    def __call__(
        self, function: Callable[[], Coroutine[Any, Any, O]], /
    ) -> Task[None, [], Coroutine[Any, Any, O], O]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[T, P], R], /) -> Task[T, P, R, R]: ...
    @overload
    def __call__(self, function: Callable[[], R], /) -> Task[None, [], R, R]: ...


@overload
def task(
    function: Callable[Concatenate[T, P], Coroutine[Any, Any, O]], /
) -> Task[T, P, Coroutine[Any, Any, O], O]: ...
@overload
def task(
    function: Callable[[], Coroutine[Any, Any, O]], /
) -> Task[None, [], Coroutine[Any, Any, O], O]: ...
@overload
def task(function: Callable[Concatenate[T, P], R], /) -> Task[T, P, R, R]: ...
@overload
def task(function: Callable[[], R], /) -> Task[None, [], R, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    queue: str | Queue = "default",
    retry: Retry | int | None = None,
    batch_size: int | None = None,
    on: ConsumerDefinition | None = None,
    prepare: Prepare | None = None,
    max_duration: Seconds | None = None,
    ttl: Seconds | None = None,
    priority: int = 0,
    concurrency_per_key: int = 1,
    schedule: Cron | str | None = None,
    verify: Verify | None = None,
) -> Decorator: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str | Queue = "default",
    retry: Retry | int | None = None,
    batch_size: int | None = None,
    on: ConsumerDefinition | None = None,
    prepare: Prepare | None = None,
    max_duration: Seconds | None = None,
    ttl: Seconds | None = None,
    priority: int = 0,
    concurrency_per_key: int = 1,
    schedule: Cron | str | None = None,
    verify: Verify | None = None,
) -> Any:
    """Declare a task.

    The function takes one parameter: a `Change`, a list of `Change`, or a payload of its own
    (pydantic model, dataclass, TypedDict, dict); or none. It may be async. `on` names the tables
    whose changes run it; `batch_size` is the largest number of changes it gets at once; `schedule`
    is when the clock runs it. `prepare` is called once in each worker process before it takes runs:
    it opens what the first run would otherwise wait for. An attempt that takes longer than
    `max_duration` is stopped, and the run is `timed_out`. `ttl` and `priority` are for triggers
    that do not say. Of a `concurrency_key` that a trigger gives, `concurrency_per_key` runs execute
    at a time. Times are in seconds, or timedeltas. `verify` finds the rows whose effect is
    missing, stale or orphaned, for `triggerkit verify`: a query on the source database, or a
    function.

    Raises:
        ConfigurationError: an option does not fit the function.
        DuplicateTask: another function has this name.
    """

    def declare(function: Callable[..., Any]) -> Task[Any, Any, Any]:
        check(function)
        made: Task[Any, Any, Any] = Task(
            function,
            name=_checked(name or name_of(function)),
            declared_queue=Queue(queue) if isinstance(queue, str) else queue,
            retry=Retry(max_attempts=retry) if isinstance(retry, int) else retry or Retry(),
            prepare=prepare,
            max_duration_s=_positive(max_duration, "max_duration"),
            ttl_s=_positive(ttl, "ttl"),
            priority=checked_priority(priority),
            concurrency_per_key=_per_key(concurrency_per_key, on),
            schedule=Cron(schedule) if isinstance(schedule, str) else schedule,
            verify=verify,
        )
        made.on = _consumer(made, on, batch_size)
        if made.schedule is not None and made.payload_type.shape in ("change", "batch"):
            raise ConfigurationError(
                f"task {made.name}: the clock sends no changes; a scheduled task takes no "
                "parameter, or a Tick"
            )
        _declare(made)
        return made

    return declare if function is None else declare(function)


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,79}", name):
        raise ConfigurationError(f"{name!r} is not a task's name: letters, digits, _ . - only")
    return name


def _positive(value: Seconds | None, option: str) -> float | None:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds is not None and seconds <= 0:
        raise ConfigurationError(f"{option}= is a time in seconds of more than 0")
    return seconds


def _per_key(runs: int, on: ConsumerDefinition | None) -> int:
    if not isinstance(runs, int) or not 1 <= runs <= MOST_PER_KEY:
        raise ConfigurationError(
            f"concurrency_per_key= is a number of runs from 1 to {MOST_PER_KEY}; for more, leave "
            "out the key, or give each run one of its own"
        )
    if runs > 1 and on is not None:
        raise ConfigurationError(
            "concurrency_per_key= is for keys that triggers give, while on= has the changes of a "
            "row executed one at a time, in order; leave one of them out"
        )
    return runs


def _consumer(
    made: Task[Any, Any, Any], on: ConsumerDefinition | None, batch_size: int | None
) -> ConsumerDefinition | None:
    shape = made.payload_type.shape
    if batch_size is not None and shape != "batch":
        raise ConfigurationError(
            f"task {made.name}: batch_size needs a parameter that is a list, "
            "such as batch: list[Change[Model]]"
        )
    if on is None:
        return None
    check_takes(made, on)
    # What a transform makes goes alone, since a payload of its own may look like a batch.
    usual = SINGLE_CHANGES if shape == "change" else BATCH_SIZE
    size = batch_size or (on.batch_size if on.batch_size > 1 else usual)
    changed = {
        "name": on.name or made.name,
        "batch_size": 1 if shape == "plain" else size,
        "task": made.name if on.is_direct else None,
    }
    return on.model_copy(update=changed)


def check_takes(made: Task[Any, Any, Any], on: ConsumerDefinition) -> None:
    """See that a task takes what a consumer sends.

    Raises:
        ConfigurationError: it does not.
    """
    shape = made.payload_type.shape
    if shape == "none" or (shape == "plain" and on.sends_messages):
        raise ConfigurationError(
            f"task {made.name}: on= sends changes, so its parameter must be a Change[Model] or "
            "a list[Change[Model]]; or give on= a transform that makes what it takes, or "
            "body='event'"
        )
    if shape != "plain" and on.transform is not None:
        raise ConfigurationError(
            f"task {made.name}: with a transform its parameter is what the transform returns, "
            "not a Change"
        )
    if shape != "plain" and on.body == "event":
        raise ConfigurationError(
            f"task {made.name}: with body='event' its parameter is the event, such as "
            "event: dict[str, Any], not a Change"
        )


def _declare(made: Task[Any, Any, Any]) -> None:
    other = declared.get(made.name)
    if other is not None and not _is_imported_again(other, made):
        raise DuplicateTask(_twice(made, other))
    declared[made.name] = made


def _twice(made: Task[Any, Any, Any], other: Task[Any, Any, Any]) -> str:
    if made.place == other.place:
        return (
            f"two tasks are named {made.name!r}: the function that declares it at {made.place} was "
            "called twice; declare the task outside of it, or give each one a name of its own with "
            "@task(name=...)"
        )
    return (
        f"two tasks are named {made.name!r}: {other.place} and {made.place}; "
        "rename one of them with @task(name=...)"
    )


def _is_imported_again(other: Task[Any, Any, Any], made: Task[Any, Any, Any]) -> bool:
    """Tell whether the module of `other` was imported anew: it has its code anew, too, while the
    functions that a factory makes share one."""
    return other.place == made.place and code_of(other.function) is not code_of(made.function)
