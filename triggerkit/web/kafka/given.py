"""What requests to the events REST API say, within bounds: body, path, parameters and headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from starlette.requests import Request

from triggerkit.events.groups.group import Options
from triggerkit.events.groups.service import Consuming
from triggerkit.tasks.receive.body import BodyRefused
from triggerkit.web.body import read_body

#: Largest body of a request.
MAX_BODY_BYTES = 256 * 1024

#: Characters of the name of a topic, and of a group or an instance.
MAX_TOPIC_CHARS, MAX_NAME_CHARS = 249, 255

#: Topics, or partitions, that one request names at most.
MOST_TOPICS, MOST_PARTITIONS = 100, 1000

#: Milliseconds that a request waits for messages, unless it says otherwise and at most.
TIMEOUT_MS, MAX_TIMEOUT_MS = 1000, 300_000

_Topic = Annotated[str, Field(min_length=1, max_length=MAX_TOPIC_CHARS)]
_Partition = Annotated[int, Field(ge=0, le=2**31 - 1)]
_Offset = Annotated[int, Field(ge=0, le=2**63 - 1)]
Timeout = Annotated[int, Field(ge=0, le=MAX_TIMEOUT_MS)]

_timeout = TypeAdapter(Timeout)
_OPTIONS: dict[str, tuple[str, TypeAdapter[Any]]] = {
    "auto_commit": ("Kafka-Enable-Auto-Commit", TypeAdapter(bool)),
    "commit_interval_ms": (
        "Kafka-Auto-Commit-Interval",
        TypeAdapter(Annotated[int, Field(ge=0, le=86_400_000)]),
    ),
    "session_timeout_ms": (
        "Kafka-Session-Timeout-Ms",
        TypeAdapter(Annotated[int, Field(ge=1000, le=1_800_000)]),
    ),
}
_RESETS = ("latest", "earliest", "none")


class _Given(BaseModel):
    # What clients send beyond it is not for us.
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class OfPartition(_Given):
    """A partition of a topic."""

    topic: _Topic
    partition: _Partition = 0


class WithOffset(OfPartition):
    """A partition, and an offset of it."""

    offset: _Offset


class FetchFrom(OfPartition):
    """A partition, and the offset to begin at: the earliest unless it is given."""

    offset: _Offset | None = None


class Fetch(_Given):
    """A request for messages by offset."""

    topic: _Topic | None = None
    partition: _Partition = 0
    offset: _Offset | None = None
    topicPartitionOffsets: Annotated[  # noqa: N815 - as clients call it
        list[FetchFrom], Field(max_length=MOST_PARTITIONS)
    ] = []
    timeout: Timeout = TIMEOUT_MS

    @property
    def places(self) -> list[FetchFrom]:
        """Where to read."""
        if self.topic is None:
            return self.topicPartitionOffsets
        own = FetchFrom(topic=self.topic, partition=self.partition, offset=self.offset)
        return [own, *self.topicPartitionOffsets]

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if not self.places:
            raise ValueError("name a topic, or topicPartitionOffsets")
        return self


class Consume(_Given):
    """A request for messages by group."""

    topic: _Topic | None = None
    topics: Annotated[list[_Topic], Field(max_length=MOST_TOPICS)] = []
    timeout: Timeout = TIMEOUT_MS


BodyT = TypeVar("BodyT", bound=BaseModel)


class Invalid(Exception):
    """A request says what it cannot; the message names the place and what it may say."""


async def body_of(request: Request, kind: type[BodyT]) -> BodyT:
    """Return the body of a request; an empty one is an object without fields."""
    return _valid(kind, await _read(request) or b"{}")


async def list_of(request: Request, kind: type[BodyT]) -> list[BodyT] | None:
    """Return the body of a request: one or an array of them, None when it is empty."""
    raw = (await _read(request)).strip()
    if not raw or raw == b"null":
        return None
    if not raw.startswith(b"["):
        return [_valid(kind, raw)]
    adapter: TypeAdapter[list[BodyT]] = TypeAdapter(list[kind])  # type: ignore[valid-type]
    found: list[BodyT] = _checked(adapter.validate_json, raw)
    if len(found) > MOST_PARTITIONS:
        raise Invalid(f"one request names at most {MOST_PARTITIONS} partitions")
    return found


def consuming_of(request: Request, body: Consume) -> tuple[Consuming, int]:
    """Return what a request is to consume, and the milliseconds that it waits."""
    path = request.path_params
    names = [path.get("topic"), body.topic, *body.topics]
    topics = tuple(dict.fromkeys(name for name in names if name))
    if not topics:
        raise Invalid("name a topic in the path, or topic or topics in the body")
    timeout = body.timeout
    if "timeout" in request.query_params:
        timeout = _checked(_timeout.validate_python, request.query_params["timeout"], "timeout")
    group, instance = names_of(request)
    return Consuming(group, instance, topics, _options(request.headers)), timeout


def names_of(request: Request) -> tuple[str, str]:
    """Return the group and the instance of a request's path."""
    group, instance = (request.path_params[name] for name in ("group", "instance"))
    for kind, name in (("a group", group), ("an instance", instance)):
        if len(name) > MAX_NAME_CHARS:
            raise Invalid(
                f"the name of {kind} has at most {MAX_NAME_CHARS} characters, this {len(name)}"
            )
        if not name.isprintable():
            raise Invalid(f"the name of {kind} has a character that cannot be printed")
    return group, instance


def _options(headers: Mapping[str, str]) -> Options:
    given: dict[str, Any] = {}
    for field, (name, adapter) in _OPTIONS.items():
        if name in headers:
            given[field] = _checked(adapter.validate_python, headers[name], name)
    reset = headers.get("Kafka-Auto-Offset-Reset", "latest").lower()
    if reset not in _RESETS:
        raise Invalid(f"Kafka-Auto-Offset-Reset: use {', '.join(_RESETS)}")
    return Options(**given, offset_reset=reset)  # type: ignore[arg-type]


async def _read(request: Request) -> bytes:
    # curl and others send JSON without saying so.
    return await read_body(request, MAX_BODY_BYTES, of_any_type=True)


def _valid(kind: type[BodyT], raw: bytes) -> BodyT:
    found: BodyT = _checked(kind.model_validate_json, raw)
    return found


def _checked(validate: Any, value: Any, name: str = "") -> Any:
    try:
        return validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if problem["type"] == "json_invalid":
            raise Invalid("malformed JSON") from None
        place = name or ".".join(map(str, problem["loc"]))
        text = problem["msg"].removeprefix("Value error, ")
        raise Invalid(f"{place}: {text}" if place else text) from None
    except RecursionError:
        raise BodyRefused(400, "malformed JSON") from None
