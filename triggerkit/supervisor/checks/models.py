"""The models that tasks take rows by, held against the columns that messages have.

A row is made up for the table's types and validated as a message's would be: aliases, validators
and settings of the model count as they do then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Final, Union, get_origin

import psycopg

from triggerkit.consumers.definition import TableName
from triggerkit.errors import ConfigurationError, suggested
from triggerkit.replication.columns import ColumnType, TableColumn, read_columns
from triggerkit.replication.publication.columns import published_columns
from triggerkit.supervisor.checks.check import Check
from triggerkit.tasks.task import Task

_TEXTS: Final = (
    "text",
    "1",
    "1.5",
    "true",
    "2026-01-02",
    "2026-01-02T03:04:05.678901Z",
    "2026-01-02T03:04:05.678901",
    "03:04:05",
    "P1D",
    "6e0a3f5c-7d1f-4d3c-9a53-1f0f0f2b9a11",
    "10.0.0.1",
    "https://example.com",
    "a@example.com",
)

#: Values as messages have them, by the name of the built-in type; all else is text.
_SAMPLES: Final[Mapping[str, Sequence[Any]]] = {
    "bool": (True, False),
    "int2": (1, 0, 7, 1000, 30_000),
    "int4": (1, 0, 7, 1000, 30_000),
    "int8": (1, 0, 7, 1000, 30_000),
    "oid": (1, 0, 7, 1000, 30_000),
    "float4": (1.5, 0.5, 100.5),
    "float8": (1.5, 0.5, 100.5),
    "numeric": ("1", "1.5", "0.5", "100"),
    "timestamptz": ("2026-01-02T03:04:05.678901Z",),
    "timestamp": ("2026-01-02T03:04:05.678901",),
    "date": ("2026-01-02",),
    "time": ("03:04:05.678901",),
    "uuid": ("6e0a3f5c-7d1f-4d3c-9a53-1f0f0f2b9a11",),
    "json": ({}, [], "text", 1, True, None),
    "jsonb": ({}, [], "text", 1, True, None),
}

#: What pydantic calls errors of a value's type, not of its content.
_OF_TYPE: Final = ("_type", "_parsing", "_from_float", "_inexact", "timezone_aware")


@dataclass(frozen=True, slots=True)
class Model:
    """What a task takes rows of these tables by."""

    task: Task[Any, Any, Any]
    tables: Sequence[TableName]

    @property
    def name(self) -> str:
        """Return the name of the class."""
        return getattr(self.task.payload_type.row_type, "__name__", "its type")


def models_of(tasks: Iterable[Task[Any, Any, Any]]) -> list[Model]:
    """Return the models of the tasks that follow tables."""
    return [
        Model(task, task.on.table_names) for task in tasks if task.on is not None and _is_one(task)
    ]


def _is_one(task: Task[Any, Any, Any]) -> bool:
    """Return whether it takes rows by one class: of several, any may be meant."""
    kind = task.payload_type.row_type
    return kind is not None and kind is not Any and get_origin(kind) not in (Union, UnionType)


async def check_models(
    source: psycopg.AsyncConnection, publication: str, models: Sequence[Model]
) -> list[Check]:
    """Check whether each model takes what messages have of its tables."""
    wanted = {table for model in models for table in model.tables}
    published = await published_columns(source, publication, wanted)
    checks: list[Check] = []
    for model in models:
        for table in model.tables:
            try:
                found = await read_columns(source, *table)
            except ConfigurationError:
                # That it is not there is told with the tables.
                continue
            columns = [c for c in found.columns if c.name in published[table]]
            checks += _checked(model, table, columns)
    return checks


def _checked(model: Model, table: TableName, columns: Sequence[TableColumn]) -> Iterator[Check]:
    label = f"model {model.name} of {model.task.name}"
    if len(model.tables) > 1:
        label += f" for {table}"
    remedy = f"triggerkit models {table}  # prints one that fits; correct {model.task.place}"
    wrong = list(_wrong(model, table, columns))
    if wrong:
        yield Check(label, False, "; ".join(wrong), remedy)
        return
    yield Check(label, True, f"takes what messages have of {table}")
    if refused := _without_null(model, columns):
        detail = f"rows of {table} may have NULL in {', '.join(refused)}, which it does not take"
        null = f"declare them as … | None in {model.name}, or: ALTER TABLE {table} ALTER COLUMN "
        null += f"{refused[0]} SET NOT NULL;"
        yield Check(f"{label}: NULL", False, detail, null, required=False)


def _wrong(model: Model, table: TableName, columns: Sequence[TableColumn]) -> Iterator[str]:
    samples = {column.name: _samples(column.type) for column in columns}
    most = max(map(len, samples.values()), default=1)
    rows = [{name: some[i % len(some)] for name, some in samples.items()} for i in range(most)]
    tried = [model.task.payload_type.misfits(row) for row in rows]
    for name, kind, _ in tried[0]:
        if kind == "missing" and name not in samples:
            yield f"{table} has no column {name!r}, which it needs{suggested(name, samples)}"
        elif kind == "extra_forbidden":
            yield f"it forbids the column {name!r}, which {table} has"
    for column in columns:
        said = [[(k, text) for name, k, text in found if name == column.name] for found in tried]
        if all(_is_of_type(problems) for problems in said):
            type_ = column.type.enum or column.type.name or "text"
            shown = f"{type_}{'[]' * column.type.dimensions}"
            yield f"column {column.name!r} is {shown}, where it says: {said[0][0][1]}"


def _is_of_type(problems: Sequence[tuple[str, str]]) -> bool:
    return bool(problems) and all(kind.endswith(_OF_TYPE) for kind, _ in problems)


def _without_null(model: Model, columns: Sequence[TableColumn]) -> list[str]:
    """Return the columns that may be NULL and whose field does not take it."""
    row = {c.name: None if c.is_nullable else _samples(c.type)[0] for c in columns}
    problems = model.task.payload_type.misfits(row)
    refused = {name for name, kind, _ in problems if kind.endswith(_OF_TYPE)}
    return [c.name for c in columns if c.is_nullable and c.name in refused]


def _samples(kind: ColumnType) -> Sequence[Any]:
    found: Sequence[Any] = kind.labels or _SAMPLES.get(kind.name or "", _TEXTS)
    for _ in range(kind.dimensions):
        found = [[sample] for sample in found]
    return found
