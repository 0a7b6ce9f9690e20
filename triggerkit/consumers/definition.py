"""Define consumers: the tables they follow, the messages they want, where they start, how they get
them. Declared in code by `rows()` and `changes()`, in `triggerkit.toml`, or through the API."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal, Self, TypedDict, Unpack

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from triggerkit.change import Action

# The names of the tables that consumers follow.
from triggerkit.configuration.table_name import TableName as TableName
from triggerkit.consumers.filters.filter import Filter
from triggerkit.consumers.filters.functions import reference_to
from triggerkit.errors import ConfigurationError, suggested
from triggerkit.log.entry import PARTITIONS

Kind = Literal["rows", "changes"]
Via = Literal["webhook", "direct"]
#: Beside what may be declared: the consumer of `[events]` that writes into Kafka.
Way = Literal["webhook", "direct", "kafka"]
Body = Literal["message", "event"]

#: Largest number of messages in one push.
MAX_BATCH_SIZE = 1000

#: What only pushes have.
_OF_PUSHES = ("endpoint", "timeout_s")

#: Of a row `c` of consumers: somebody has to ask for its messages.
IS_PULLED = (
    "(c.endpoint_id IS NULL AND coalesce(c.definition ->> 'via', 'webhook') NOT IN "
    "('direct', 'kafka'))"
)

#: The words that `start` knows; everything else is a value of the sort column.
BEGINNING = "beginning"
END = "end"


def _table(text: str) -> str:
    try:
        return str(TableName.parse(text))
    except ConfigurationError as error:
        raise ValueError(str(error)) from None


def _name(text: str | None) -> str | None:
    # Browsers and clients go up by . and .. in a path.
    if text is not None and not re.fullmatch(r"(?!\.\.?$)[A-Za-z0-9_.-]{1,80}", text):
        raise ValueError(f"{text!r} is not a valid consumer name; use only letters, digits, _ . -")
    return text


def _place(value: object) -> object:
    # TOML and Python have dates; what is stored is JSON.
    return value.isoformat() if isinstance(value, datetime | date) else value


Table = Annotated[str, AfterValidator(_table)]
Place = Annotated[str | int | float, BeforeValidator(_place)]


class ConsumerDefinition(BaseModel):
    """A consumer as declared. Every field may be set in code, in the file and through the API."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = "changes"
    #: The tables it follows, as `schema.table`.
    tables: Annotated[tuple[Table, ...], Field(min_length=1)]
    #: The column that orders the existing rows, oldest first; without it the primary key does.
    sort_by: str | None = None
    #: Which existing rows it reads first: all from the "beginning", none with "end", or those whose
    #: sort column is at or after a value.
    start: Place = BEGINNING
    #: Comparisons of columns, all of which a message must pass.
    filters: tuple[Filter, ...] = ()
    #: `module:function` that is called with a `Change` and says whether it is wanted.
    filter: str | None = None
    #: `module:function` that is called with a `Change` and returns what is sent in its place.
    transform: str | None = None
    #: What is sent of a change: its message, or its event, as its table's topic has it.
    body: Body = "message"
    #: An update that changed none of these columns is not delivered.
    when_changed: tuple[str, ...] | None = None
    #: Only these actions are delivered.
    actions: tuple[Action, ...] | None = None
    #: Columns whose values are kept in order together; without it each row is on its own.
    group_by: tuple[str, ...] | None = None
    #: Messages in one push at most. With 1 the body is the message itself.
    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE)] = 1
    #: Whether the body is `{"data": [message]}` also with a `batch_size` of 1, as Sequin's is.
    always_data: bool = False
    #: What every message carries in `metadata.consumer.annotations`.
    annotations: dict[str, Any] | None = None
    #: Seconds that a batch which is not full waits for more messages.
    batch_timeout_s: Annotated[float, Field(ge=0, le=60)] = 0.0
    #: Pushes under way at most.
    concurrency: Annotated[int, Field(ge=1, le=PARTITIONS)] = PARTITIONS
    #: The deadline of one push, answer included. For a pulled consumer: how long a caller has to
    #: acknowledge what it received.
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    #: Attempts for a message that fails alone; None is forever.
    max_attempts: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    #: Then: "block" keeps the messages of its key waiting, "skip" lets them pass.
    on_exhausted: Literal["block", "skip"] = "block"
    #: The endpoint it is pushed to; without one (and without a task) it is pulled.
    endpoint: str | None = None
    #: How a task of this installation gets its messages: by a push to its "webhook" route, or
    #: "direct": the stream makes the runs, in the transaction that moves the cursor.
    via: Way = "webhook"
    #: The task that gets them directly; a consumer that a task declares is its own.
    task: str | None = None
    #: Whether it is paused; None leaves that to commands.
    paused: bool | None = None
    #: Rewind: "beginning" (of the retained log), a position, or a time. Done once for each value.
    replay_from: Place | None = None
    name: Annotated[str | None, AfterValidator(_name)] = None

    @model_validator(mode="before")
    @classmethod
    def _start_of_kind(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("start") is None:
            changes_only = values.get("kind", "changes") == "changes"
            return {**values, "start": END if changes_only else BEGINNING}
        return values

    @model_validator(mode="before")
    @classmethod
    def _without_push(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("via") == "direct":
            for name in _OF_PUSHES:
                if values.get(name) is not None:
                    raise ValueError(
                        f"via='direct' makes runs without a push, which has no {name}; leave "
                        f"{name} out, or leave via out"
                    )
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.task is not None and not self.is_direct:
            raise ValueError(
                f"task={self.task!r} works only with via='direct'; with a push, name the endpoint "
                "that leads to the task's route"
            )
        if self.body == "event" and self.transform is not None:
            raise ValueError(
                "body='event' and transform both say what is sent; leave one of them out"
            )
        if self.start not in (BEGINNING, END) and self.sort_by is None:
            raise ValueError(
                f"start={self.start!r} is a value of the sort column, so sort_by must name one; "
                "without it start is 'beginning' or 'end'"
            )
        return self

    def as_json(self) -> dict[str, Any]:
        """Return the definition as it is stored."""
        return self.model_dump(mode="json", exclude=set(_OF_PUSHES) if self.has_own_way else None)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read a stored definition; fields that are not known any more are passed over."""
        return cls.model_validate({k: v for k, v in values.items() if k in cls.model_fields})

    @classmethod
    def parse(cls, values: dict[str, Any], where: str) -> Self:
        """Read a definition that a person wrote; `where` is its place, such as a path in a file.

        Raises:
            ConfigurationError: a field is unknown or does not fit; the message has its path.
        """
        if values.get("via") == "kafka":
            raise ConfigurationError(
                f"{where} via: 'kafka' is not declared by a consumer; name the tables in [events] "
                "of triggerkit.toml"
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigurationError(_message_of(error, where)) from None

    @property
    def sends_alone(self) -> bool:
        """Whether the body of a push is a message by itself."""
        return self.batch_size == 1 and not self.always_data

    @property
    def is_direct(self) -> bool:
        """Whether the stream makes the runs of its messages itself."""
        return self.via == "direct"

    @property
    def is_kafka(self) -> bool:
        """Whether the stream writes its messages into Kafka, as events."""
        return self.via == "kafka"

    @property
    def sends_messages(self) -> bool:
        """Whether what is sent are messages; else events, or what a transform makes."""
        return self.body == "message" and self.transform is None

    @property
    def has_own_way(self) -> bool:
        """Whether the stream itself brings its messages where they go, without an endpoint."""
        return self.via != "webhook"

    @property
    def table_names(self) -> tuple[TableName, ...]:
        """The tables it follows."""
        return tuple(map(TableName.parse, self.tables))


class ConsumerOptions(TypedDict, total=False):
    """Options of `rows()` and `changes()`; see the fields of `ConsumerDefinition`."""

    sort_by: str | None
    start: str | float | datetime | date
    filters: Sequence[Filter | tuple[str, str] | tuple[str, str, object]]
    filter: Callable[[Any], bool] | str | None
    transform: Callable[[Any], object] | str | None
    body: Body
    when_changed: Sequence[str] | None
    actions: Sequence[Action] | None
    group_by: Sequence[str] | None
    batch_size: int | None
    always_data: bool
    annotations: dict[str, Any] | None
    batch_timeout_s: float
    concurrency: int
    timeout_s: float
    max_attempts: int | None
    on_exhausted: Literal["block", "skip"]
    paused: bool | None
    replay_from: str | int | datetime | None
    via: Via
    name: str | None


def rows(*tables: str, **options: Unpack[ConsumerOptions]) -> ConsumerDefinition:
    """Follow the rows of `tables`: each existing row once, then every change of it.

    Raises:
        ConfigurationError: an option does not fit; the message names it.
    """
    return _definition("rows", tables, options)


def changes(*tables: str, **options: Unpack[ConsumerOptions]) -> ConsumerDefinition:
    """Follow the changes of `tables` from now on; existing rows only with `start="beginning"`.

    Raises:
        ConfigurationError: an option does not fit; the message names it.
    """
    return _definition("changes", tables, options)


def _definition(
    kind: Kind, tables: tuple[str, ...], options: ConsumerOptions
) -> ConsumerDefinition:
    if not tables:
        raise ConfigurationError(f"{kind}() needs a table, such as {kind}('public.posts')")
    values: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    for name in ("filter", "transform"):
        if callable(values.get(name)):
            values[name] = reference_to(values[name], name)
    return ConsumerDefinition.parse({"kind": kind, "tables": tables, **values}, f"{kind}()")


def _message_of(error: ValidationError, where: str) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        path = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            fields = sorted(ConsumerDefinition.model_fields)
            meant = suggested(str(problem["loc"][-1]), fields)
            message = f"is not known{meant or ';'} known are {', '.join(fields)}"
        elif problem["type"] == "literal_error":
            message += f", not {problem['input']!r}"
        lines.append(f"{where}{f' {path}' if path else ''}: {message}")
    return "\n".join(lines)
