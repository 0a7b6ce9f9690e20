"""The table that a backfill is to read, its column to sort by and its bounds, held against it."""

from __future__ import annotations

from typing import NamedTuple

import psycopg
from psycopg import sql

from triggerkit.consumers.definition import TableName
from triggerkit.errors import ConfigurationError
from triggerkit.replication.unknown_table import no_column, no_table

#: The column's type, and whether an index that holds all rows begins with the column.
_COLUMN = """
SELECT a.attname, format_type(a.atttypid, NULL), EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum
    AND i.indisvalid AND i.indpred IS NULL)
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""


class BackfillSource(NamedTuple):
    """A table to read, its bounds as Postgres prints them."""

    table: TableName
    lower: str | None
    until: str | None
    warning: str | None


async def source_of(
    source: psycopg.AsyncConnection,
    table: TableName,
    sort_by: str | None,
    from_: str | None,
    until: str | None,
) -> BackfillSource:
    """Hold what was asked for against the table, and have Postgres write the bounds."""
    cursor = await source.execute(_COLUMN, table)
    columns = {name: (type_name, indexed) for name, type_name, indexed in await cursor.fetchall()}
    if not columns:
        raise ConfigurationError(await no_table(source, table))
    if sort_by is None:
        if from_ is not None or until is not None:
            raise ConfigurationError(
                f"a bound needs a column of {table} to compare with; name one with --sort-by"
            )
        return BackfillSource(table, None, None, None)
    if sort_by not in columns:
        raise ConfigurationError(no_column(table, sort_by, columns))
    type_name, is_indexed = columns[sort_by]
    lower = await _cast(source, table, sort_by, type_name, "from", from_)
    before = await _cast(source, table, sort_by, type_name, "until", until)
    return BackfillSource(
        table, lower, before, None if is_indexed else _index_advice(table, sort_by)
    )


async def _cast(
    source: psycopg.AsyncConnection,
    table: TableName,
    column: str,
    type_name: str,
    which: str,
    value: str | None,
) -> str | None:
    if value is None:
        return None
    # The name of the type is as format_type writes it: quoted where it has to be.
    query = sql.SQL("SELECT {}::{}::text").format(sql.Literal(value), sql.SQL(type_name))
    try:
        async with source.transaction():
            cursor = await source.execute(query)
    except psycopg.DataError:
        raise ConfigurationError(
            f"{which}: {value!r} is not a value of column {column!r} of {table}, "
            f"whose type is {type_name}"
        ) from None
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


def _index_advice(table: TableName, column: str) -> str:
    statement = sql.SQL("CREATE INDEX CONCURRENTLY ON {} ({})").format(
        sql.Identifier(*table), sql.Identifier(column)
    )
    return (
        f"no index of {table} begins with {column!r}, so each chunk sorts the table; "
        f"run: {statement.as_string(None)};"
    )
