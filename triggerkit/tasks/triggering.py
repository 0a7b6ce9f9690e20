"""Apply the options of a trigger to the run that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack

from triggerkit.configuration.moments import require_near
from triggerkit.errors import ConfigurationError
from triggerkit.runs.door import door
from triggerkit.runs.otel import current_traceparent
from triggerkit.runs.run import NewRun, RunOptions
from triggerkit.tasks.context import RunContext, checked_metadata, checked_tags, running
from triggerkit.tasks.queue import Queue
from triggerkit.tasks.retry import check_attempts

T = TypeVar("T")

#: A time span: seconds, or a timedelta.
Seconds = float | timedelta

#: Longest time that can be asked for: ten years.
LONGEST_S = 10 * 366 * 86400


@dataclass(frozen=True, slots=True)
class Debounce:
    """Triggers of one key that follow each other closely make one run, with the last payload.

    The run starts once `delay` has passed without another trigger, and at the latest `maximum`
    after the first; without a maximum a key that never rests never runs. Where it `keeps` the
    first, the others' payloads, tags, metadata and priority are dropped.
    """

    key: str
    delay: Seconds
    maximum: Seconds | None = None
    keeps: Literal["last", "first"] = "last"


class TriggerOptions(TypedDict, total=False):
    """Keyword arguments of `trigger` and its kin.

    `delay`: start so much later, or at a time. `ttl`: expire if it has not started so much after it
    was due: triggered, or its delay over. `idempotency_key`: make no second run for the key, for
    `idempotency_ttl`; `idempotency_scope` says where the key counts: everywhere, in the run that
    triggers, or in its present attempt. `concurrency_key`: of the runs with it one executes at a
    time, or as many as the task's `concurrency_per_key`, in order. `priority`: start as if
    triggered so many seconds earlier. `queue`: wait in another queue than the task's, with its
    limits. `max_attempts`: other than the task's `retry` has. `cancel_with_parent`: be canceled
    when the run that triggers it is. `connection`: accept it in the transaction of this connection
    to the state database: of psycopg, asyncpg, SQLAlchemy (connection or session) or Django.
    """

    delay: Seconds | datetime
    ttl: Seconds
    queue: str
    max_attempts: int
    idempotency_key: str
    idempotency_scope: Literal["global", "run", "attempt"]
    idempotency_ttl: Seconds
    debounce: Debounce
    concurrency_key: str
    priority: int
    tags: Sequence[str]
    metadata: dict[str, Any]
    cancel_with_parent: bool
    connection: Any


class Item(Generic[T]):
    """One of the payloads of `trigger_many`, with options of its own: `Item(payload, delay=60)`."""

    __slots__ = ("options", "payload")

    def __init__(self, payload: T, /, **options: Unpack[TriggerOptions]) -> None:
        self.payload = payload
        self.options = options


def with_options(run: NewRun, requested: TriggerOptions, of_task: RunOptions) -> NewRun:
    """`run` as the caller asks for; what that leaves open is as the task has it.

    Raises:
        ConfigurationError: an option is unknown, or does not fit.
    """
    if unknown := requested.keys() - TriggerOptions.__optional_keys__:
        known = ", ".join(sorted(TriggerOptions.__optional_keys__))
        raise ConfigurationError(
            f"{min(unknown)!r} is not an option of a trigger; the options are {known}"
        )
    context = running.get()
    traceparent = current_traceparent() or (None if context is None else context.traceparent)
    if not (requested or context or traceparent):
        return run
    debounce = requested.get("debounce")
    if debounce is not None and ("idempotency_key" in requested or "delay" in requested):
        raise ConfigurationError("debounce= has its own key and delay; leave out the others")
    delay = requested.get("delay", 0.0) if debounce is None else debounce.delay
    key = _key(requested.get("concurrency_key"))
    return replace(
        run,
        queue=Queue(requested["queue"]).name if "queue" in requested else run.queue,
        max_attempts=_checked_attempts(requested.get("max_attempts", run.max_attempts)),
        delay_s=_delay_s(delay),
        idempotency_key=_idempotency_key(requested, context) or run.idempotency_key,
        concurrency_key=key or run.concurrency_key,
        options=RunOptions(
            priority_s=checked_priority(requested.get("priority", of_task.priority_s)),
            ttl_s=_seconds(requested["ttl"], "ttl") if "ttl" in requested else of_task.ttl_s,
            idempotency_ttl_s=_seconds_of(requested, "idempotency_ttl"),
            debounce_key=None if debounce is None else _key(debounce.key),
            debounce_max_s=(
                None
                if debounce is None or debounce.maximum is None
                else _seconds(debounce.maximum, "maximum")
            ),
            debounce_keeps_first=debounce is not None and _keeps_first(debounce),
            tags=tuple(checked_tags(list(requested.get("tags", ())))),
            metadata=checked_metadata(requested["metadata"]) if "metadata" in requested else None,
            parent_id=None if context is None else context.id,
            cancel_with_parent=_with_parent(requested, context),
            traceparent=traceparent,
            concurrency_per_key=1 if key is None else of_task.concurrency_per_key,
        ),
    )


def _idempotency_key(requested: TriggerOptions, context: RunContext | None) -> str | None:
    key = requested.get("idempotency_key")
    scope = requested.get("idempotency_scope", "global")
    if scope not in ("global", "run", "attempt"):
        raise ConfigurationError(f"idempotency_scope is global, run or attempt, not {scope!r}")
    if key is None:
        if "idempotency_scope" in requested or "idempotency_ttl" in requested:
            raise ConfigurationError("idempotency_scope and idempotency_ttl need idempotency_key=")
        return None
    return scoped_key(key, scope, context)


def scoped_key(
    key: str | None, scope: Literal["global", "run", "attempt"], context: RunContext | None
) -> str | None:
    """Return the key as it is stored.

    Raises:
        ConfigurationError: the scope is a run, and none executes here; or it is no key.
    """
    key = _key(key)
    if key is None or scope == "global":
        return key
    if context is None:
        raise ConfigurationError(f"idempotency_scope={scope!r} works only inside a run")
    return f"{context.id}/{context.attempt}/{key}" if scope == "attempt" else f"{context.id}/{key}"


def _with_parent(requested: TriggerOptions, context: RunContext | None) -> bool:
    wanted = bool(requested.get("cancel_with_parent", False))
    if wanted and context is None:
        raise ConfigurationError("cancel_with_parent= is for triggers inside of a run")
    return wanted


def _checked_attempts(attempts: int) -> int:
    check_attempts(attempts, "max_attempts=")
    return attempts


def checked_priority(priority: int) -> int:
    """`priority`, if a run may have it.

    Raises:
        ConfigurationError: it is no whole number, or beyond ten years.
    """
    if not isinstance(priority, int) or abs(priority) >= LONGEST_S:
        raise ConfigurationError("priority= is a number of seconds, at most ten years of them")
    return priority


def _key(key: str | None) -> str | None:
    if key is None:
        return None
    if not isinstance(key, str) or not key:
        raise ConfigurationError("a key must be a non-empty string")
    return key


def _keeps_first(debounce: Debounce) -> bool:
    if debounce.keeps not in ("last", "first"):
        raise ConfigurationError(f"a Debounce keeps the last or the first, not {debounce.keeps!r}")
    return debounce.keeps == "first"


def _delay_s(delay: Seconds | datetime) -> float:
    if isinstance(delay, datetime):
        if delay.tzinfo is None:
            raise ConfigurationError(
                "delay= needs a time with a time zone: datetime(…, tzinfo=UTC)"
            )
        try:
            require_near(delay)
        except ValueError as error:
            raise ConfigurationError(f"delay=: {error}") from None
        return max(0.0, (delay - door().now()).total_seconds())
    return _seconds(delay, "delay")


def _seconds_of(requested: TriggerOptions, name: Literal["idempotency_ttl"]) -> float | None:
    return _seconds(requested[name], name) if name in requested else None


def _seconds(value: Seconds, name: str) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not isinstance(seconds, int | float) or not 0 <= seconds < LONGEST_S:
        raise ConfigurationError(f"{name}= is a time in seconds, from 0 to ten years")
    return float(seconds)
