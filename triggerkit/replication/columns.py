"""A table's columns with their types as messages carry them, and the comments on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg

from triggerkit.errors import ConfigurationError
from triggerkit.replication.unknown_table import no_table

_TABLE = """
SELECT c.oid, obj_description(c.oid, 'pg_class')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')
"""

_COLUMNS = """
SELECT attname, atttypid, attndims, attnotnull, attgenerated <> '',
    col_description(attrelid, attnum)
FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""

#: Types, with those that they are made of: a domain's base, an array's element.
_TYPES = """
WITH RECURSIVE reached (oid) AS (
    SELECT unnest(%s::oid[])
    UNION
    SELECT CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END
    FROM reached r JOIN pg_type t ON t.oid = r.oid
    WHERE t.typtype = 'd' OR t.typoutput = 'pg_catalog.array_out'::regproc)
SELECT t.oid, t.typname, n.nspname = 'pg_catalog', t.typbasetype, t.typndims,
    CASE WHEN t.typoutput = 'pg_catalog.array_out'::regproc THEN t.typelem ELSE 0 END,
    ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid
          ORDER BY e.enumsortorder)
FROM reached r JOIN pg_type t ON t.oid = r.oid JOIN pg_namespace n ON n.oid = t.typnamespace
"""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A type as messages have its values: of a domain the base, of an array the element.

    `name` is None for a type that is not built in. `dimensions` counts the nested lists, 0 for a
    value by itself. An enum has its `labels` and its own name in `enum`.
    """

    name: str | None
    dimensions: int = 0
    enum: str | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column. `is_generated`: messages have it only where the server publishes it."""

    name: str
    type: ColumnType
    is_nullable: bool
    is_generated: bool = False
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class TableColumns:
    """A table with its columns in their order."""

    schema: str
    name: str
    columns: tuple[TableColumn, ...]
    comment: str | None = None


class _ColumnType(NamedTuple):
    name: str
    is_built_in: bool
    base_oid: int
    dimensions: int
    element_oid: int
    labels: Sequence[str]


async def read_columns(connection: psycopg.AsyncConnection, schema: str, name: str) -> TableColumns:
    """Read a table's columns from the catalog.

    Raises:
        ConfigurationError: there is no such table.
    """
    cursor = await connection.execute(_TABLE, [schema, name])
    table = await cursor.fetchone()
    if table is None:
        raise ConfigurationError(await no_table(connection, (schema, name)))
    oid, comment = table
    cursor = await connection.execute(_COLUMNS, [oid])
    columns = await cursor.fetchall()
    cursor = await connection.execute(_TYPES, [[column[1] for column in columns]])
    types = {oid: _ColumnType(*facts) for oid, *facts in await cursor.fetchall()}
    return TableColumns(schema, name, tuple(_column(types, *column) for column in columns), comment)


def _column(
    types: dict[int, _ColumnType], name: str, oid: int, dimensions: int, *facts: Any
) -> TableColumn:
    not_null, is_generated, comment = facts
    found = _resolved(types, oid, dimensions)
    return TableColumn(name, found, not not_null, is_generated, comment)


def _resolved(types: dict[int, _ColumnType], oid: int, dimensions: int) -> ColumnType:
    found = types[oid]
    if found.base_oid:
        return _resolved(types, found.base_oid, found.dimensions or dimensions)
    if found.element_oid:
        element = _resolved(types, found.element_oid, 0)
        # What is declared, since Postgres itself takes any number.
        count = element.dimensions + max(dimensions, 1)
        return ColumnType(element.name, count, element.enum, element.labels)
    if found.labels:
        return ColumnType(None, 0, found.name, tuple(found.labels))
    return ColumnType(found.name if found.is_built_in else None)
