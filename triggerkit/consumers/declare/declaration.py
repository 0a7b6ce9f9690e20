"""Read what a project declares: consumers by `on=` in code, consumers and endpoints in its file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    StrictBool,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.errors import ConfigurationError, suggested
from triggerkit.events.declaration import DeclaredEvents

#: Who declared a consumer or an endpoint; `api` is the commands' and the management API's.
Manager = Literal["code", "file", "api"]

FILE = "triggerkit.toml"

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Declared:
    """A declared consumer: its name, what it is, and for a task's the path of its route."""

    name: str
    definition: ConsumerDefinition
    path: str | None = None
    managed_by: Manager = "code"

    @property
    def where(self) -> str:
        """Name the place of the declaration, for messages."""
        return f"{FILE} consumers.{self.name}" if self.managed_by == "file" else self.name


@dataclass(frozen=True, slots=True)
class DeclaredEndpoint:
    """An endpoint of the file. A `url` that begins with / is a path of our own `serve`, or of a
    `local` endpoint a path on the machine that a tunnel leads to."""

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    signing_secret: str | None = field(default=None, repr=False)
    local: bool = False


@dataclass(frozen=True, slots=True)
class Declarations:
    """Everything that a project declares."""

    consumers: Sequence[Declared] = ()
    endpoints: Sequence[DeclaredEndpoint] = ()
    events: DeclaredEvents | None = None
    #: Whether events are written into Kafka.
    has_kafka: bool = False
    #: Whether the log itself is on Kafka.
    is_log_on_kafka: bool = False

    def __post_init__(self) -> None:
        seen: dict[str, Declared] = {}
        for consumer in self.consumers:
            other = seen.setdefault(consumer.name, consumer)
            if other is not consumer:
                raise ConfigurationError(
                    f"two consumers are named {consumer.name!r} ({other.where} in "
                    f"{other.managed_by}, {consumer.where} in {consumer.managed_by}); rename one"
                )


class _Endpoint(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: str
    headers: dict[str, str] = {}
    signing_secret: str | None = None
    local: StrictBool = False

    @field_validator("url")
    @classmethod
    def _without_password(cls, value: str) -> str:
        if "@" in re.split(r"[/?#]", value.partition("://")[2], maxsplit=1)[0]:
            raise ValueError("it must not have a user name or password; send them in a header")
        return value


_endpoints = TypeAdapter(dict[str, _Endpoint])
_tables = TypeAdapter(dict[str, dict[str, Any]])


def read_file(
    endpoints: object, consumers: object, environment: Mapping[str, str]
) -> tuple[list[Declared], list[DeclaredEndpoint]]:
    """Return the tables `consumers` and `endpoints` of triggerkit.toml.

    `${NAME}` and `${NAME:-default}` in an endpoint's values stand for the environment's.

    Raises:
        ConfigurationError: a key is unknown, a value does not fit, a variable is not set; the
            message has the path of the field.
    """
    found = _validated(_endpoints, _expanded(endpoints, "endpoints", environment), "endpoints")
    made = [
        DeclaredEndpoint(name, given.url, given.headers, given.signing_secret, given.local)
        for name, given in found.items()
    ]
    tables = _validated(_tables, consumers, "consumers")
    declared = [
        pushed(
            Declared(
                name,
                ConsumerDefinition.parse({"name": name, **values}, f"{FILE} consumers.{name}"),
                managed_by="file",
            )
        )
        for name, values in tables.items()
    ]
    return declared, made


def pushed(declared: Declared) -> Declared:
    """Return a declaration of the file or of the API, having seen that events are pushed.

    Raises:
        ConfigurationError: somebody would have to ask for them.
    """
    definition = declared.definition
    if definition.body == "event" and definition.endpoint is None and not definition.has_own_way:
        raise ConfigurationError(
            f"{declared.where} body: 'event' is for what is pushed; name the endpoint. Who asks "
            "for events reads their topics, under /kafka"
        )
    return declared


def _expanded(value: object, path: str, environment: Mapping[str, str]) -> object:
    if isinstance(value, dict):
        return {k: _expanded(v, f"{path}.{k}", environment) for k, v in value.items()}
    if not isinstance(value, str):
        return value

    def expand(match: re.Match[str]) -> str:
        name, default = match.groups()
        given = environment.get(name) or default
        if given is None:
            raise ConfigurationError(
                f"{FILE} {path}: the variable {name} is not set; set it in the environment or in "
                f".env, or write ${{{name}:-default}}"
            )
        return given

    return _VARIABLE.sub(expand, value)


def _validated(adapter: TypeAdapter[Any], value: object, table: str) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False, include_input=False):
            path = ".".join(map(str, (table, *problem["loc"])))
            message = problem["msg"]
            if problem["type"] == "extra_forbidden":
                meant = suggested(str(problem["loc"][-1]), _Endpoint.model_fields)
                message = (
                    f"is not known{meant or ';'} known are {', '.join(_Endpoint.model_fields)}"
                )
            lines.append(f"{FILE} {path}: {message}")
        raise ConfigurationError("\n".join(lines)) from None
