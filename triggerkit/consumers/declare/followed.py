"""The columns of followed tables, and how filters compare their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from triggerkit.consumers.definition import ConsumerDefinition, TableName
from triggerkit.consumers.filters.comparison import (
    BY_CODE_POINT,
    COLLATED,
    Comparison,
    comparison_of,
)
from triggerkit.replication.publication.columns import published_columns

#: A table's columns: name, type as written, the built-in type that it is made of (NULL for others),
#: that one's name to cast to, how its text is ordered, whether an index begins with it.
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod),
    CASE WHEN t.typtype = 'e' THEN 'enum'
        WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname::text END,
    format_type(t.oid, -1),
    CASE WHEN NOT l.collisdeterministic THEN 'fuzzy'
        WHEN getdatabaseencoding() IN ('UTF8', 'LATIN1', 'SQL_ASCII') AND (
            l.collprovider = 'b' OR l.collprovider = 'c' AND l.collcollate IN ('C', 'POSIX')
            OR l.collprovider = 'd' AND (d.datcollate IN ('C', 'POSIX')
                    AND coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c'
                OR to_jsonb(d) ->> 'datlocprovider' = 'b'))
        THEN 'code point' END,
    EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum
            AND i.indisvalid AND i.indpred IS NULL)
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    WITH RECURSIVE made_of AS (
        SELECT * FROM pg_type WHERE oid = a.atttypid
        UNION ALL
        SELECT p.* FROM made_of m JOIN pg_type p ON p.oid = m.typbasetype WHERE m.typtype = 'd')
    SELECT * FROM made_of WHERE typtype <> 'd') t
JOIN pg_database d ON d.datname = current_database()
LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')
  AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""


@dataclass(frozen=True, slots=True)
class FollowedColumn:
    """A column of a followed table."""

    name: str
    type_name: str
    #: The built-in type that it is made of, None for others.
    base: str | None
    #: The name to cast a value to, which cuts nothing off to a length.
    cast_type: str
    #: How text is ordered: by code point, or fuzzy, where equal text may differ.
    order: str | None
    is_indexed: bool

    @property
    def comparison(self) -> Comparison | None:
        """How its values compare, None when they cannot be compared as Postgres does."""
        return None if self.base is None else comparison_of(self.compared_type or "")

    @property
    def compared_type(self) -> str | None:
        """Its type as filters have it."""
        if self.base not in COLLATED:
            return self.base
        if self.order == "fuzzy":
            return None
        return f"{self.base}{BY_CODE_POINT}" if self.order == "code point" else self.base


async def read_followed(
    source: psycopg.AsyncConnection, table: TableName
) -> dict[str, FollowedColumn]:
    """Return the columns of a table by name; none when there is no such table."""
    cursor = await source.execute(_COLUMNS, table)
    return {row[0]: FollowedColumn(*row) for row in await cursor.fetchall()}


async def retyped(source: psycopg.AsyncConnection, definition: ConsumerDefinition) -> Sequence[str]:
    """Return what became of columns whose type is not the one that a filter compares any more."""
    found = []
    for table in definition.table_names:
        columns = await read_followed(source, table) if definition.filters else {}
        for filter_ in definition.filters:
            column = columns.get(filter_.column)
            if column is None or filter_.type is None:
                continue
            if column.comparison != comparison_of(filter_.type):
                found.append(
                    f"column {column.name!r} of {table} is {column.type_name} now, and its filter "
                    f"compares {filter_.type}"
                )
    return found


async def gone(
    source: psycopg.AsyncConnection, publication: str, definition: ConsumerDefinition
) -> Sequence[str]:
    """Return which columns that a definition names messages do not have any more, and what follows
    from it."""
    published = await published_columns(source, publication, definition.table_names)
    named = (
        ("when_changed", definition.when_changed or (), "every update is delivered"),
        ("group_by", definition.group_by or (), "messages are parked"),
        ("filters", [f.column for f in definition.filters], "messages pass its filter"),
        ("sort_by", [definition.sort_by] if definition.sort_by else (), "no backfill can be read"),
    )
    return [
        f"messages of {table} have no column {name!r} any more, which {option} names: {effect}"
        for option, names, effect in named
        for table in definition.table_names
        if table in published
        for name in names
        if name not in published[table]
    ]
