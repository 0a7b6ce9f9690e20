"""Read the table `[events]` of triggerkit.toml: which tables' changes are events, and how."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from triggerkit.configuration.table_name import TableName
from triggerkit.errors import ConfigurationError, suggested

#: In place of tables: all that can be followed.
EVERY_TABLE: Final = "*"

_WHERE: Final = "triggerkit.toml events"


def _table(text: str) -> str:
    try:
        return str(TableName.parse(text))
    except ConfigurationError as error:
        raise ValueError(str(error)) from None


class DeclaredEvents(BaseModel):
    """The events of the source database, as they are declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    #: The tables, or "*" for all that can be followed.
    tables: (
        Literal["*"]
        | Annotated[tuple[Annotated[str, AfterValidator(_table)], ...], Field(min_length=1)]
    )
    #: What stands for the database in the topics' names; its own name unless it is given.
    database: Annotated[str, Field(max_length=100)] | None = None
    #: Partitions of a topic that is made in Kafka.
    partitions: Annotated[int, Field(ge=1, le=10_000)] = 8
    #: Copies of such a topic; the broker's own number unless it is given.
    replication_factor: Annotated[int, Field(ge=1, le=100)] | None = None
    #: Whether a message without a value follows each delete in Kafka, for compacted topics.
    tombstones: bool = False
    #: A message that is larger than its topic takes: "block" keeps the later ones of its key
    #: waiting, "skip" lets them pass.
    too_large: Literal["block", "skip"] = "block"

    @field_validator("database")
    @classmethod
    def _fits_a_topic(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", value):
            raise ValueError("it stands in the names of topics: use only letters, digits, _ and -")
        return value

    @property
    def table_names(self) -> tuple[TableName, ...] | None:
        """The tables, each once; None for all."""
        if self.tables == EVERY_TABLE:
            return None
        return tuple(dict.fromkeys(map(TableName.parse, self.tables)))


def read_events(value: object) -> DeclaredEvents | None:
    """Return what the table `events` of triggerkit.toml says; None without one.

    Raises:
        ConfigurationError: a key is unknown, or a value does not fit; the message has its path.
    """
    if not value:
        return None
    try:
        return DeclaredEvents.model_validate(value)
    except ValidationError as error:
        lines = dict.fromkeys(
            f"{_WHERE}.{problem['loc'][0]}: {_message(problem['loc'], problem)}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise ConfigurationError("\n".join(lines)) from None


def _message(place: tuple[int | str, ...], problem: object) -> str:
    assert isinstance(problem, dict)
    known = sorted(DeclaredEvents.model_fields)
    if problem["type"] == "extra_forbidden":
        meant = suggested(str(place[0]), known)
        return f"is not known{meant or ';'} known are {', '.join(known)}"
    if place[0] == "tables" and problem["type"] != "value_error":
        return 'must be a list of tables, such as ["public.posts"], or "*" for all'
    return str(problem["msg"]).removeprefix("Value error, ")
