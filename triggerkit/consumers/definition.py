"""What a consumer is: the tables it follows, the changes it wants, where it starts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, Self

from triggerkit.errors import ConfigurationError

Kind = Literal["rows", "changes"]
Start = Literal["beginning", "end"]

#: Largest number of messages in one push.
MAX_BATCH_SIZE = 1000


class TableName(NamedTuple):
    """A table by schema and name, as `schema.table`."""

    schema: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `schema.table`; without a schema it is `public`.

        Raises:
            ConfigurationError: `text` is not a table's name.
        """
        schema, dot, name = text.rpartition(".")
        if not name or (dot and not schema):
            raise ConfigurationError(f"{text!r} is not a table; write it as schema.table")
        return cls(schema or "public", name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class ConsumerDefinition:
    """A consumer as declared; `rows()` and `changes()` make one.

    `when_changed` names columns: an update that changed none of them is not delivered.
    `timeout_s` is the deadline of one push, answer included.
    """

    kind: Kind
    tables: tuple[str, ...]
    sort_by: str | None = None
    start: Start = "beginning"
    when_changed: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None
    batch_size: int = 1
    timeout_s: float = 30.0
    name: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The definition as it is stored."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read a stored definition."""
        known = {f.name for f in fields(cls)}
        frozen: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**{k: v for k, v in frozen.items() if k in known})

    @property
    def table_names(self) -> tuple[TableName, ...]:
        """The tables it follows."""
        return tuple(map(TableName.parse, self.tables))


def rows(
    *tables: str,
    sort_by: str | None = None,
    start: Start = "beginning",
    when_changed: Sequence[str] | None = None,
    actions: Sequence[str] | None = None,
    batch_size: int | None = None,
    timeout_s: float = 30.0,
    name: str | None = None,
) -> ConsumerDefinition:
    """Follow the rows of `tables`: each existing row once, then every change of it.

    `sort_by` orders the existing rows (oldest first); without it the primary key does.
    """
    return _definition(
        "rows", tables, sort_by, start, when_changed, actions, batch_size, timeout_s, name
    )


def changes(
    *tables: str,
    start: Start = "end",
    when_changed: Sequence[str] | None = None,
    actions: Sequence[str] | None = None,
    batch_size: int | None = None,
    timeout_s: float = 30.0,
    name: str | None = None,
) -> ConsumerDefinition:
    """Follow the changes of `tables` from now on; existing rows only with `start="beginning"`."""
    return _definition(
        "changes", tables, None, start, when_changed, actions, batch_size, timeout_s, name
    )


def _definition(
    kind: Kind,
    tables: tuple[str, ...],
    sort_by: str | None,
    start: Start,
    when_changed: Sequence[str] | None,
    actions: Sequence[str] | None,
    batch_size: int | None,
    timeout_s: float,
    name: str | None,
) -> ConsumerDefinition:
    if not tables:
        raise ConfigurationError(f"{kind}() needs a table, such as {kind}('public.posts')")
    if batch_size is not None and not 1 <= batch_size <= MAX_BATCH_SIZE:
        raise ConfigurationError(f"batch_size must be between 1 and {MAX_BATCH_SIZE}")
    if start not in ("beginning", "end"):
        raise ConfigurationError(f"start must be 'beginning' or 'end', not {start!r}")
    if name is not None and not re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", name):
        raise ConfigurationError(f"{name!r} is not a consumer's name: letters, digits, _ . - only")
    known = {"insert", "update", "delete", "read", "truncate"}
    if unknown := set(actions or ()) - known:
        raise ConfigurationError(f"unknown action {min(unknown)!r}; known are {sorted(known)}")
    return ConsumerDefinition(
        kind=kind,
        tables=tuple(str(TableName.parse(t)) for t in tables),
        sort_by=sort_by,
        start=start,
        when_changed=None if when_changed is None else tuple(when_changed),
        actions=None if actions is None else tuple(actions),
        batch_size=batch_size or 1,
        timeout_s=timeout_s,
        name=name,
    )
