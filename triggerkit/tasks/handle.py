"""Handles and runs: what was triggered, how it is now, and what can be done about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Generic, TypeAlias, cast

from typing_extensions import TypeVar

from triggerkit.configuration.moments import require_near
from triggerkit.errors import ConfigurationError, UnknownRun
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.door import door
from triggerkit.runs.run import RunError, RunRef, Status
from triggerkit.tasks.context import running
from triggerkit.tasks.output import OutputType, as_json
from triggerkit.tasks.waiting import (
    check_not_on_loop,
    check_other,
    output_of,
    running_run,
    without_slot,
)

O = TypeVar("O", default=Any)  # noqa: E741 - the output

#: Most runs that one list has.
MOST_LISTED = 10_000


@dataclass(frozen=True, slots=True)
class Handle(Generic[O]):
    """The answer to a trigger: the run's id and task, and whether the run existed before."""

    id: str
    task: str
    duplicate: bool = False
    _output: OutputType = field(default=as_json, repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """Return the handle as the webhook route answers it."""
        return RunRef(self.id, self.task, self.duplicate).as_json()

    def run(self) -> Run:
        """Return the run as it is now; see `Run.get`."""
        return Run.get(self.id)

    async def arun(self) -> Run:
        """`run` for async callers."""
        return await Run.aget(self.id)

    def status(self) -> Status:
        """Return the run's status."""
        return self.run().status

    async def astatus(self) -> Status:
        """`status` for async callers."""
        return (await self.arun()).status

    def result(self, timeout: float | None = None) -> O:
        """Wait for the run's end and return its output. Inside of a run the slot is free meanwhile.

        Raises:
            RunFailed: it ended without success.
            TimeoutError: it did not end within `timeout` seconds; it goes on.
        """
        check_not_on_loop(self.id, running.get(), "handle.aresult()")
        check_other(self.id, running.get())
        with without_slot():
            end = door().wait(self.id, timeout, running_run())
        return cast("O", self._output.read(output_of(end)))

    async def aresult(self, timeout: float | None = None) -> O:
        """`result` for async callers."""
        check_other(self.id, running.get())
        with without_slot():
            end = await door().wait_async(self.id, timeout, running_run())
        return cast("O", self._output.read(output_of(end)))

    def cancel(self) -> bool:
        """Cancel the run; False when it has ended already.

        One that waits is canceled at once; one that executes is stopped by its worker, within a
        second or so.
        """
        return door().cancel(self.id)

    async def acancel(self) -> bool:
        """`cancel` for async callers."""
        return await door().cancel_async(self.id)

    def reschedule(self, delay: float | timedelta | datetime) -> None:
        """Have a run that waits start so much later from now, or at a time.

        Raises:
            TriggerkitError: it executes, or has ended.
        """
        door().reschedule(self.id, _delay_s(delay))

    async def areschedule(self, delay: float | timedelta | datetime) -> None:
        """`reschedule` for async callers."""
        await door().reschedule_async(self.id, _delay_s(delay))


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it was when it was looked up. A list has runs without `payload` and `output`.

    `reason` says why it is not running. `output` is JSON.
    """

    id: str
    task: str
    queue: str
    status: Status
    reason: str | None
    attempt: int
    max_attempts: int
    error: RunError | None
    idempotency_key: str | None
    concurrency_key: str | None
    tags: Sequence[str]
    metadata: dict[str, Any]
    source: dict[str, Any] | None
    priority: int
    created_at: datetime
    scheduled_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    parent_id: str | None
    payload: Any = None
    output: Any = None

    @classmethod
    def get(cls, run_id: str) -> Run:
        """Return the run of this id.

        Raises:
            UnknownRun: there is none.
        """
        return _run_of(run_id, door().find(run_id))

    @classmethod
    async def aget(cls, run_id: str) -> Run:
        """`get` for async callers."""
        return _run_of(run_id, await door().find_async(run_id))

    @classmethod
    def list(
        cls,
        *,
        task: str | None = None,
        status: Status | Sequence[Status] = (),
        queue: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> _Runs:
        """Return the newest runs that fit all that is given, newest first."""
        wanted = _filter(task, status, queue, tag, since, until, limit)
        return [_made(row) for row in door().search(wanted, limit)]

    @classmethod
    async def alist(
        cls,
        *,
        task: str | None = None,
        status: Status | Sequence[Status] = (),
        queue: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> _Runs:
        """`list` for async callers."""
        wanted = _filter(task, status, queue, tag, since, until, limit)
        return [_made(row) for row in await door().search_async(wanted, limit)]

    @property
    def handle(self) -> Handle:
        """Return the run's handle: to wait for it, cancel it or reschedule it."""
        return Handle(self.id, self.task)


_Runs: TypeAlias = list[Run]

_FIELDS = frozenset(field.name for field in fields(Run))


def _filter(
    task: str | None,
    status: Status | Sequence[Status],
    queue: str | None,
    tag: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
) -> RunFilter:
    if not 1 <= limit <= MOST_LISTED:
        raise ConfigurationError(f"limit= is a number from 1 to {MOST_LISTED}")
    statuses: Any = (status,) if isinstance(status, str) else tuple(status)
    return RunFilter(task=task, statuses=statuses, queue=queue, tag=tag, since=since, until=until)


def _run_of(run_id: str, row: dict[str, Any] | None) -> Run:
    if row is None:
        raise UnknownRun(f"no run has the id {run_id!r}; was it removed by retention?")
    return _made(row)


def _made(row: dict[str, Any]) -> Run:
    values = {name: value for name, value in row.items() if name in _FIELDS}
    error = values["error"]
    return Run(**{**values, "error": None if error is None else RunError(**error)})


def _delay_s(delay: float | timedelta | datetime) -> float:
    if isinstance(delay, datetime):
        if delay.tzinfo is None:
            raise ConfigurationError("a time needs a time zone: datetime(…, tzinfo=UTC)")
        try:
            require_near(delay)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        return max(0.0, (delay - door().now()).total_seconds())
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if not 0 <= seconds < 10 * 366 * 86400:
        raise ConfigurationError("a delay is a time in seconds, from 0 to ten years")
    return float(seconds)
