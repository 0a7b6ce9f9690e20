"""`Task`: a function that can be triggered, and still be called."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.errors import ConfigurationError, FieldProblem, InvalidPayload
from triggerkit.runs.door import door
from triggerkit.runs.results import End
from triggerkit.runs.run import NewRun, RunOptions, RunRef
from triggerkit.runs.schedules import Cron
from triggerkit.tasks.context import running
from triggerkit.tasks.function import is_async, place_of
from triggerkit.tasks.handle import Handle, O
from triggerkit.tasks.hooks import HookDecorators, Hooks
from triggerkit.tasks.output import OutputType
from triggerkit.tasks.payload.payload_type import PayloadType
from triggerkit.tasks.queue import Queue
from triggerkit.tasks.retry import Retry
from triggerkit.tasks.triggering import Item, TriggerOptions, scoped_key, with_options
from triggerkit.tasks.verification import Verify
from triggerkit.tasks.waiting import (
    check_not_on_loop,
    check_other,
    check_wait,
    output_of,
    running_run,
    without_slot,
)

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")

#: What a task's worker calls before it takes runs; an async one runs on the tasks' event loop.
Prepare = Callable[[], object]


#: The payload of a task that takes none.
_NOTHING: Any = None


class Task(HookDecorators, Generic[T, P, R, O]):
    """A task: its function, its name, and how its runs are executed.

    `T` is the type of its payload, None when it takes none; `O` is that of its output.
    """

    def __init__(
        self,
        function: Callable[..., R],
        *,
        name: str,
        declared_queue: Queue,
        retry: Retry,
        on: ConsumerDefinition | None = None,
        prepare: Prepare | None = None,
        max_duration_s: float | None = None,
        ttl_s: float | None = None,
        priority: int = 0,
        concurrency_per_key: int = 1,
        schedule: Cron | None = None,
        verify: Verify | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.declared_queue = declared_queue
        self.retry = retry
        self.on = on
        self.prepare = prepare
        self.max_duration_s = max_duration_s
        self.ttl_s = ttl_s
        self.priority = priority
        self.concurrency_per_key = concurrency_per_key
        self.schedule = schedule
        self.verify = verify
        self.hooks = Hooks()
        self.payload_type = PayloadType(function)
        self.output_type = OutputType(function)
        self.is_async = is_async(function)

    @overload
    def __call__(self: Task[None, P, R, O]) -> R: ...
    @overload
    def __call__(self, payload: T, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc] # takes all
        """Run the function in place, as plain Python."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return self.declared_queue.name

    @property
    def has_route(self) -> bool:
        """Whether `serve` has a webhook route for it: directly, none is needed."""
        return self.on is not None and not self.on.is_direct

    @property
    def path(self) -> str:
        """The path of the webhook route that `on=` makes."""
        return f"/api/{self.name.replace('_', '-')}"

    @property
    def place(self) -> str:
        """Return where its function stands, as `file:line`."""
        return "{}:{}".format(*place_of(self.function))

    @overload
    def trigger(self: Task[None, P, R, O], /, **options: Unpack[TriggerOptions]) -> Handle[O]: ...
    @overload
    def trigger(self, payload: T, /, **options: Unpack[TriggerOptions]) -> Handle[O]: ...
    def trigger(self, payload: Any = None, /, **options: Unpack[TriggerOptions]) -> Handle[O]:
        """Have a worker call the function with `payload`. Durable when it returns, or, with
        `connection=`, when the transaction of that is committed.

        Raises:
            InvalidPayload: the payload does not fit the parameter's type.
            ConfigurationError: an option does not fit.
            NotDurable: the state database is away.
        """
        connection = options.pop("connection", None)
        run = self._run(payload, options)
        if connection is None:
            return self._handle(door().accept([run])[0])
        return self._handle(door().accept_within(connection, [run])[0])

    @overload
    async def atrigger(
        self: Task[None, P, R, O], /, **options: Unpack[TriggerOptions]
    ) -> Handle[O]: ...
    @overload
    async def atrigger(self, payload: T, /, **options: Unpack[TriggerOptions]) -> Handle[O]: ...
    async def atrigger(
        self, payload: Any = None, /, **options: Unpack[TriggerOptions]
    ) -> Handle[O]:
        """`trigger` for async callers."""
        connection = options.pop("connection", None)
        run = self._run(payload, options)
        if connection is None:
            return self._handle((await door().accept_async([run]))[0])
        return self._handle((await door().accept_within_async(connection, [run]))[0])

    def trigger_many(
        self, payloads: Sequence[T | Item[T]], /, **options: Unpack[TriggerOptions]
    ) -> list[Handle[O]]:
        """`trigger` for each of `payloads`, in order: one round trip for each thousand.

        Each thousand is accepted whole or not at all. An idempotency key counts for each payload
        by its place. `Item(payload, delay=60)` has options of its own, which go before the others.
        """
        connection = options.pop("connection", None)
        runs = self._runs(payloads, options)
        if connection is None:
            return self._handles(door().accept(runs))
        return self._handles(door().accept_within(connection, runs))

    async def atrigger_many(
        self, payloads: Sequence[T | Item[T]], /, **options: Unpack[TriggerOptions]
    ) -> list[Handle[O]]:
        """`trigger_many` for async callers."""
        connection = options.pop("connection", None)
        runs = self._runs(payloads, options)
        if connection is None:
            return self._handles(await door().accept_async(runs))
        return self._handles(await door().accept_within_async(connection, runs))

    def trigger_and_wait(
        self,
        payload: T = _NOTHING,
        /,
        *,
        timeout: float | None = None,
        **options: Unpack[TriggerOptions],
    ) -> O:
        """`trigger`, then wait for the run's end and return its output, as the type that the
        function returns.

        Inside of a run the slot is free for others meanwhile.

        Raises:
            RunFailed: it ended without success.
            TimeoutError: it did not end within `timeout` seconds; it goes on.
            ConfigurationError: an async task calls this: it would block all others.
        """
        check_not_on_loop(self.name, running.get(), "task.atrigger_and_wait(…)")
        run = self._awaited(payload, options)
        with without_slot():
            handle = door().accept([run])[0]
            check_other(handle.id, running.get())
            return self._output(door().wait(handle.id, timeout, running_run()))

    async def atrigger_and_wait(
        self,
        payload: T = _NOTHING,
        /,
        *,
        timeout: float | None = None,
        **options: Unpack[TriggerOptions],
    ) -> O:
        """`trigger_and_wait` for async callers."""
        run = self._awaited(payload, options)
        with without_slot():
            handle = (await door().accept_async([run]))[0]
            check_other(handle.id, running.get())
            return self._output(await door().wait_async(handle.id, timeout, running_run()))

    def reset_idempotency_key(self, key: str) -> bool:
        """Forget a key that counts everywhere: the next trigger with it makes a run. False when no
        run had it."""
        return door().forget_key(self.name, scoped_key(key, "global", None) or "")

    def new_run(self, payload: object, options: TriggerOptions | None = None) -> NewRun:
        """Return a run of this task with a payload that is ready for JSON.

        Raises:
            InvalidPayload: it does not fit the parameter's type.
        """
        return self._as_asked(self._of_json(payload), options or {})

    def run_of(
        self,
        payload: bytes,
        items: int | None = None,
        *,
        idempotency_key: str | None = None,
        concurrency_key: str | None = None,
        source: dict[str, Any] | None = None,
        traceparent: str | None = None,
    ) -> NewRun:
        """Return a run with a payload that was checked before. With a concurrency key, one run of
        it executes at a time."""
        options = None
        if self.ttl_s is not None or self.priority or traceparent is not None:
            options = _common_options(self.ttl_s, self.priority, traceparent)
        return NewRun(
            task=self.name,
            queue=self.queue,
            max_attempts=self.retry.max_attempts,
            payload=payload,
            items=items,
            idempotency_key=idempotency_key,
            concurrency_key=concurrency_key,
            source=source,
            options=options,
        )

    def _run(self, payload: Any, options: TriggerOptions) -> NewRun:
        if self.payload_type.shape == "none" and payload is not None:
            raise TypeError(f"{self.name} takes no payload")
        if self.payload_type.shape == "batch":
            payload = {"data": list(payload) if isinstance(payload, tuple) else payload}
        return self._as_asked(self._of_json(payload), options)

    def _as_asked(self, run: NewRun, options: TriggerOptions) -> NewRun:
        of_task = RunOptions(
            ttl_s=self.ttl_s,
            priority_s=self.priority,
            concurrency_per_key=self.concurrency_per_key,
        )
        return with_options(run, options, of_task)

    def _of_json(self, payload: Any) -> NewRun:
        shape = self.payload_type.shape
        if shape == "none":
            if payload is not None:
                raise InvalidPayload([FieldProblem((), f"{self.name} takes no payload")])
            return self.run_of(b"null")
        if shape != "batch":
            return self.run_of(self.payload_type.write(payload))
        messages = [self.payload_type.write(one) for one in self._messages(payload)]
        return self.run_of(b'{"data":[%b]}' % b",".join(messages), items=len(messages))

    def _runs(self, payloads: Sequence[Any], options: TriggerOptions) -> list[NewRun]:
        if "debounce" in options:
            raise ConfigurationError("debounce= works only with a single trigger")
        return [
            self._run_of_many(number, payload, options) for number, payload in enumerate(payloads)
        ]

    def _run_of_many(self, number: int, payload: Any, options: TriggerOptions) -> NewRun:
        own: TriggerOptions = payload.options if isinstance(payload, Item) else {}
        if "debounce" in own or "connection" in own:
            raise ConfigurationError("debounce= and connection= are no options of a single item")
        payload = payload.payload if isinstance(payload, Item) else payload
        run = self._run(payload, {**options, **own})
        has_common_key = "idempotency_key" in options and "idempotency_key" not in own
        return _numbered(run, number) if has_common_key else run

    def _handle(self, run: RunRef) -> Handle[O]:
        return Handle(run.id, run.task, run.duplicate, self.output_type)

    def _handles(self, runs: Sequence[RunRef]) -> list[Handle[O]]:
        return [self._handle(run) for run in runs]

    def _output(self, end: End) -> O:
        return cast("O", self.output_type.read(output_of(end)))

    def _awaited(self, payload: Any, options: TriggerOptions) -> NewRun:
        if "connection" in options:
            raise ConfigurationError(
                "leave out connection= to wait for a run: it would start only after the commit"
            )
        run = self._run(payload, options)
        check_wait(run, running.get())
        return replace(run, options=replace(run.options or RunOptions(), awaited=True))

    def _messages(self, payload: object) -> list[Any]:
        if self.payload_type.shape != "batch" or not (
            isinstance(payload, dict) and "data" in payload
        ):
            return [payload]
        messages = payload["data"]
        if isinstance(messages, list) and messages:
            return messages
        raise InvalidPayload([FieldProblem(("data",), "must be a list of at least one message")])


@functools.lru_cache(maxsize=64, typed=True)
def _common_options(ttl_s: float | None, priority_s: int, traceparent: str | None) -> RunOptions:
    """Return what all runs of a push have: one for all of them."""
    return RunOptions(ttl_s=ttl_s, priority_s=priority_s, traceparent=traceparent)


def _numbered(run: NewRun, number: int) -> NewRun:
    key = (run.full_keys or {}).get("idempotency_key", run.idempotency_key)
    return replace(run, idempotency_key=f"{key}/{number}")


AnyTask = Task[Any, Any, Any] | Task[Any, ..., Awaitable[Any]]
