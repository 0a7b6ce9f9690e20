"""`@task`: a function that can be triggered, and still be called."""

from __future__ import annotations

import functools
import inspect
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, overload

from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.errors import ConfigurationError, DuplicateTask, FieldProblem, InvalidPayload
from triggerkit.runs.client import portal
from triggerkit.runs.run import Handle, NewRun
from triggerkit.worker.encode import encode, ready_for_json
from triggerkit.worker.payload import PayloadType

P = ParamSpec("P")
R = TypeVar("R")

#: What a task's worker calls before it takes runs; an async one runs on the tasks' event loop.
Prepare = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and when a failing run is tried again. Delays are in seconds.

    The wait after attempt n is `min_delay_s * factor ** (n - 1)`, times a random number between 1
    and 2 when `jitter` is on, and at most `max_delay_s`.
    """

    max_attempts: int = 3
    factor: float = 2.0
    min_delay_s: float = 1.0
    max_delay_s: float = 60.0
    jitter: bool = True

    def __post_init__(self) -> None:
        if self.max_attempts < 1 or self.factor < 1 or min(self.min_delay_s, self.max_delay_s) < 0:
            raise ConfigurationError(
                "Retry needs max_attempts and factor of 1 or more, and no negative delay"
            )

    def delay_s(self, attempt: int) -> float:
        """Seconds to wait after `attempt` (from 1) failed."""
        spread = random.uniform(1, 2) if self.jitter else 1.0  # noqa: S311 - jitter, not a secret
        try:
            return min(self.max_delay_s, spread * self.min_delay_s * self.factor ** (attempt - 1))
        except OverflowError:
            return self.max_delay_s


class Task(Generic[P, R]):
    """A task: its function, its name, and how its runs are executed."""

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str,
        queue: str,
        retry: Retry,
        on: ConsumerDefinition | None,
        prepare: Prepare | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.queue = queue
        self.retry = retry
        self.on = on
        self.prepare = prepare
        self.payload_type = PayloadType(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in place, as plain Python."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    @property
    def path(self) -> str:
        """The path of the webhook route that `on=` makes."""
        return f"/api/{self.name.replace('_', '-')}"

    @property
    def place(self) -> str:
        """Where its function stands, as `file:line`."""
        code = inspect.unwrap(self.function).__code__
        return f"{code.co_filename}:{code.co_firstlineno}"

    def trigger(self, *args: P.args, **kwargs: P.kwargs) -> Handle:
        """Have the function run by a worker, with the same arguments as a call takes.

        Durable when it returns.

        Raises:
            InvalidPayload: the argument does not fit the parameter's type.
            NotDurable: the state database is away.
        """
        return portal.accept([self._run(*args, **kwargs)])[0]

    async def atrigger(self, *args: P.args, **kwargs: P.kwargs) -> Handle:
        """`trigger` for async callers."""
        return (await portal.accept_async([self._run(*args, **kwargs)]))[0]

    def new_run(self, payload: object) -> NewRun:
        """A run of this task with a payload that is ready for JSON.

        Raises:
            InvalidPayload: it does not fit the parameter's type.
        """
        messages = self._messages(payload)
        for message in messages:
            self.payload_type.parse(message)
        if self.payload_type.shape == "batch":
            return self.run_of(encode({"data": messages}), items=len(messages))
        return self.run_of(encode(payload))

    def run_of(self, payload: bytes, items: int | None = None) -> NewRun:
        """A run with a payload that was checked before."""
        return NewRun(
            task=self.name,
            queue=self.queue,
            max_attempts=self.retry.max_attempts,
            payload=payload,
            items=items,
        )

    def _run(self, *args: P.args, **kwargs: P.kwargs) -> NewRun:
        if len(args) + len(kwargs) > 1:
            raise TypeError(f"a run of {self.name} carries its first argument alone")
        bound = inspect.signature(self.function).bind(*args, **kwargs)
        bound.apply_defaults()
        payload = ready_for_json(next(iter(bound.arguments.values())))
        return self.new_run({"data": payload} if self.payload_type.shape == "batch" else payload)

    def _messages(self, payload: object) -> list[Any]:
        if self.payload_type.shape != "batch" or not (
            isinstance(payload, dict) and "data" in payload
        ):
            return [payload]
        messages = payload["data"]
        if isinstance(messages, list) and messages:
            return messages
        raise InvalidPayload([FieldProblem(("data",), "must be a list of one message or more")])


#: The tasks declared by the modules imported so far, by name.
declared: dict[str, Task[Any, Any]] = {}


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(
    *,
    name: str | None = None,
    queue: str = "default",
    retry: Retry | int | None = None,
    batch_size: int | None = None,
    on: ConsumerDefinition | None = None,
    prepare: Prepare | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str = "default",
    retry: Retry | int | None = None,
    batch_size: int | None = None,
    on: ConsumerDefinition | None = None,
    prepare: Prepare | None = None,
) -> Task[P, R] | Callable[[Callable[P, R]], Task[P, R]]:
    """Declare a task.

    The function takes one parameter: a `Change`, a list of `Change`, or a payload of its own
    (pydantic model, dataclass, TypedDict, dict). It may be async. `on` names the tables whose
    changes run it; `batch_size` is the largest number of changes it gets at once. `prepare` is
    called once in each worker process before it takes runs: it opens what the first run would
    otherwise wait for.

    Raises:
        ConfigurationError: an option does not fit the function.
        DuplicateTask: another function has this name.
    """

    def declare(function: Callable[P, R]) -> Task[P, R]:
        made = Task(
            function,
            name=_checked(name or function.__name__, "task"),
            queue=_checked(queue, "queue"),
            retry=Retry(max_attempts=retry) if isinstance(retry, int) else retry or Retry(),
            on=None,
            prepare=prepare,
        )
        made.on = _consumer(made, on, batch_size)
        _declare(made)
        return made

    return declare if function is None else declare(function)


def _checked(name: str, what: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,79}", name):
        raise ConfigurationError(f"{name!r} is not a {what}'s name: letters, digits, _ . - only")
    return name


def _consumer(
    made: Task[Any, Any], on: ConsumerDefinition | None, batch_size: int | None
) -> ConsumerDefinition | None:
    shape = made.payload_type.shape
    if batch_size is not None and shape != "batch":
        raise ConfigurationError(
            f"task {made.name}: batch_size needs a parameter that is a list, "
            "such as batch: list[Change[Model]]"
        )
    if on is None:
        return None
    if shape == "plain" and on.transform is None:
        raise ConfigurationError(
            f"task {made.name}: on= sends changes, so its parameter must be a Change[Model] or "
            "a list[Change[Model]]; or give on= a transform that makes what it takes"
        )
    if shape != "plain" and on.transform is not None:
        raise ConfigurationError(
            f"task {made.name}: with a transform its parameter is what the transform returns, "
            "not a Change"
        )
    size = batch_size or (on.batch_size if on.batch_size > 1 else 100)
    changed = {"name": on.name or made.name, "batch_size": size if shape == "batch" else 1}
    return on.model_copy(update=changed)


def _declare(made: Task[Any, Any]) -> None:
    other = declared.get(made.name)
    if other is not None and other.place != made.place:
        raise DuplicateTask(
            f"two tasks are named {made.name!r}: {other.place} and {made.place}; "
            "rename one of them with @task(name=...)"
        )
    declared[made.name] = made


AnyTask = Task[Any, Any] | Task[..., Awaitable[Any]]
