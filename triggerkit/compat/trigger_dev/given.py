"""What requests of the SDK say, and the options of a trigger as triggerkit has them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal, TypeVar, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from starlette.requests import Request

from triggerkit.compat.trigger_dev.durations import read_moment, read_span
from triggerkit.tasks.receive.body import BodyRefused
from triggerkit.tasks.triggering import Debounce, TriggerOptions
from triggerkit.web.body import read_body

#: Largest body of a request, and of the items of a batch.
MAX_BODY_BYTES = 5 * 1024 * 1024
MAX_ITEMS_BYTES = 32 * 1024 * 1024

#: Most items of a batch; they are accepted all or none.
MOST_ITEMS = 1000

#: How long an idempotency key counts unless it is said, as the SDK documents it.
KEY_TTL_S: Final = timedelta(days=30).total_seconds()

#: A key that is triggered all the time runs at the latest after so long, unless it is said.
DEBOUNCE_MAX_S: Final = timedelta(hours=1).total_seconds()

#: Options that nothing here corresponds to, with what to do instead.
NOT_OFFERED: Final = {
    "machine": "start a worker on such a machine, for a queue of its own",
    "maxDuration": "set it on the task, @task(max_duration=…)",
    "region": "start a worker there, for a queue of its own",
    "lockToVersion": "a task has one version here; leave out version and TRIGGER_VERSION",
    "concurrency": "set limits of queues, Queue(name, concurrency=…)",
    "gates": "a run waits in one queue",
    "rateLimitKey": "set a rate of the queue, Queue(name, rate=…)",
    "parentRunId": "trigger from inside a Python task for a run with a parent",
    "resumeParentOnCompletion": "use trigger_and_wait inside a Python task",
    "test": "runs are not marked as tests",
    "bulkActionId": "bulk actions are the dashboard's",
}

#: What the SDK sends of these unless something was asked for.
_UNASKED: Final = (None, False)


def _span(text: str) -> str:
    read_span(text)
    return text


def _moment(text: str) -> str:
    read_moment(text)
    return text


def _as_text(key: object) -> object:
    return str(key) if isinstance(key, int | float) and not isinstance(key, bool) else key


Span = Annotated[str, AfterValidator(_span)]
Moment = Annotated[str, AfterValidator(_moment)]
Key = Annotated[str, Field(min_length=1)]


class Given(BaseModel):
    """A request's body; an unknown field is refused by its name."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class QueueName(Given):
    """The queue to wait in. Its limit is the queue's own; the SDK's first versions sent one."""

    name: Key
    concurrencyLimit: int | None = None  # noqa: N815 - as the SDK calls it


class DebounceOptions(Given):
    """Triggers of one key that follow each other closely make one run, with the first payload, or
    with the last one."""

    key: Key
    delay: Span
    maxDelay: Span | None = None  # noqa: N815 - as the SDK calls it
    mode: Literal["leading", "trailing"] = "leading"

    def as_asked(self) -> Debounce:
        """Return it as Python's triggers take it."""
        most_s = DEBOUNCE_MAX_S if self.maxDelay is None else read_span(self.maxDelay)
        keeps: Literal["first", "last"] = "first" if self.mode == "leading" else "last"
        return Debounce(self.key, read_span(self.delay), most_s, keeps)


class Options(Given):
    """The options of a trigger, by the SDK's names."""

    queue: QueueName | None = None
    concurrencyKey: Annotated[Key, BeforeValidator(_as_text)] | None = None  # noqa: N815
    idempotencyKey: Key | None = None  # noqa: N815
    idempotencyKeyTTL: Span | None = None  # noqa: N815
    #: The key before the SDK hashed it, which it shows to people; the size of the payload; and
    #: the commit that the caller runs at, which the SDK finds by itself.
    idempotencyKeyOptions: Any = None  # noqa: N815
    payloadSize: int | None = None  # noqa: N815
    externalDeploymentId: str | None = None  # noqa: N815
    delay: Moment | None = None
    ttl: Span | Annotated[float, Field(ge=0)] | None = None
    tags: str | list[str] | None = None
    maxAttempts: int | None = None  # noqa: N815
    metadata: dict[str, Any] | None = None
    metadataType: str | None = None  # noqa: N815
    payloadType: str | None = None  # noqa: N815
    priority: int | None = None
    debounce: DebounceOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_offered(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        asked = {n: v for n, v in values.items() if n not in NOT_OFFERED or v not in _UNASKED}
        for name in asked:
            if name in NOT_OFFERED:
                raise ValueError(f"{name} is not offered; {NOT_OFFERED[name]}")
        return asked

    def as_asked(self) -> TriggerOptions:
        """Return the options that are set, as Python's triggers take them."""
        options: dict[str, Any] = {
            "queue": None if self.queue is None else self.queue.name,
            "concurrency_key": self.concurrencyKey,
            "idempotency_key": self.idempotencyKey,
            "delay": None if self.delay is None else read_moment(self.delay),
            # None at all, as the SDK documents 0.
            "ttl": (read_span(self.ttl) if isinstance(self.ttl, str) else self.ttl) or None,
            "tags": [self.tags] if isinstance(self.tags, str) else self.tags,
            "max_attempts": self.maxAttempts,
            "metadata": self.metadata,
            "priority": self.priority,
            "debounce": None if self.debounce is None else self.debounce.as_asked(),
        }
        if self.idempotencyKey is not None:
            ttl = self.idempotencyKeyTTL
            options["idempotency_ttl"] = KEY_TTL_S if ttl is None else read_span(ttl)
        return cast(
            "TriggerOptions", {name: one for name, one in options.items() if one is not None}
        )


class Trigger(Given):
    """A payload, packed as `payloadType` says, and how its run is to be executed."""

    payload: Any = None
    context: Any = None
    options: Options = Options()


class Item(Trigger):
    """One of a batch: its place there, and its task."""

    index: Annotated[int, Field(ge=0, lt=MOST_ITEMS)]
    task: Key


class NewBatch(Given):
    """A batch whose items come in a request of their own."""

    runCount: Annotated[int, Field(ge=1, le=MOST_ITEMS)]  # noqa: N815
    idempotencyKey: Key | None = None  # noqa: N815
    idempotencyKeyOptions: Any = None  # noqa: N815
    taskIdentifiers: list[str] | None = None  # noqa: N815
    parentRunId: None = None  # noqa: N815
    resumeParentOnCompletion: Literal[False] | None = None  # noqa: N815


class Replay(Options):
    """What a replay has other than the run that it is of."""

    payload: Any = None

    @model_validator(mode="before")
    @classmethod
    def _name_the_queue(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("queue"), str):
            return {**values, "queue": {"name": values["queue"]}}
        return values


class KeyReset(Given):
    """The task whose key is reset."""

    taskIdentifier: Key  # noqa: N815


class Reschedule(Given):
    """When a run that waits is to start."""

    delay: Moment

    def until(self) -> float | datetime:
        """Return the seconds from now, or the time."""
        return read_moment(self.delay)


class NewSchedule(Given):
    """A schedule of a task; a second one of its key changes the first."""

    task: Key
    cron: Key
    deduplicationKey: Key | None = None  # noqa: N815
    externalId: str | None = None  # noqa: N815
    timezone: str = "UTC"


class QueuePause(Given):
    """What is to be done to a queue, and how it was named."""

    type: Literal["id", "task", "custom"]
    action: Literal["pause", "resume"]


class QueueLimit(Given):
    """The limit of a queue, and how the queue was named; none resets it."""

    type: Literal["id", "task", "custom"]
    concurrencyLimit: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None  # noqa: N815


BodyT = TypeVar("BodyT", bound=BaseModel)


async def body_of(request: Request, kind: type[BodyT]) -> BodyT:
    """Return the body of a request."""
    return read_as(kind, await read_body(request, MAX_BODY_BYTES, of_any_type=True))


def read_as(kind: type[BodyT], raw: bytes) -> BodyT:
    """Return JSON as what it has to be."""
    try:
        return kind.model_validate_json(raw)
    except RecursionError:
        raise BodyRefused(400, "malformed JSON") from None
