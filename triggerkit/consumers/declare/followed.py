"""The columns of followed tables, and how filters compare their values."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from triggerkit.consumers.definition import ConsumerDefinition, TableName
from triggerkit.consumers.filters.comparison import (
    BY_CODE_POINT,
    COLLATED,
    Comparison,
    comparison_of,
)
from triggerkit.consumers.filters.filter import ORDERING, Filter
from triggerkit.state.reading import Reads, rows_of

#: The columns of tables: table, name, type as written, the built-in type that it is made of (NULL
#: for others), that one's name to cast to, how its text is ordered, whether an index begins with
#: it.
_COLUMNS = """
SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
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
FROM unnest(%s::text[], %s::text[]) w (schema, name)
JOIN pg_namespace n ON n.nspname = w.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p')
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN LATERAL (
    WITH RECURSIVE made_of AS (
        SELECT * FROM pg_type WHERE oid = a.atttypid
        UNION ALL
        SELECT p.* FROM made_of m JOIN pg_type p ON p.oid = m.typbasetype WHERE m.typtype = 'd')
    SELECT * FROM made_of WHERE typtype <> 'd') t
JOIN pg_database d ON d.datname = current_database()
LEFT JOIN pg_collation l ON l.oid = a.attcollation
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

    @property
    def read_as(self) -> str:
        """What its values in messages are like: equal ones are the same JSON in columns that are
        alike in this."""
        if self.base in ("int2", "int4", "int8"):
            return "integer"
        if self.base in ("text", "varchar", "name", "enum"):
            return "text"
        if self.base == "numeric":
            return f"numeric{_SCALE.sub('', self.type_name)}"
        return self.type_name if self.base in (None, "bpchar") else self.base


#: All of a type's name but the scale.
_SCALE = re.compile(r"^.*?(?=,|$)")


#: The columns of tables, by name; none of a table that there is not.
Followed = Mapping[TableName, Mapping[str, FollowedColumn]]


async def read_followed(
    source: Reads, tables: Iterable[TableName]
) -> dict[TableName, dict[str, FollowedColumn]]:
    """Return the columns of those of the tables that there are."""
    names = list(set(tables))
    found: dict[TableName, dict[str, FollowedColumn]] = {}
    if names:
        listed = [[schema for schema, _ in names], [name for _, name in names]]
        for schema, table, name, *facts in await rows_of(source, _COLUMNS, listed):
            column = FollowedColumn(name, *facts)
            found.setdefault(TableName(schema, table), {})[name] = column
    return found


def retyped(followed: Followed, definition: ConsumerDefinition) -> Sequence[str]:
    """Return what became of columns whose type is not the one that a filter compares any more."""
    found = []
    for table in definition.table_names:
        columns = followed.get(table, {})
        for filter_ in definition.filters:
            column = columns.get(filter_.column)
            if column is None or filter_.type is None:
                continue
            if not _is_compared_alike(column.comparison, filter_):
                found.append(
                    f"column {column.name!r} of {table} is {column.type_name} now, and its filter "
                    f"compares {filter_.type}"
                )
    return found


def _is_compared_alike(comparison: Comparison | None, filter_: Filter) -> bool:
    declared = comparison_of(filter_.type or "")
    if comparison is None or declared is None or comparison.key is not declared.key:
        return False
    return comparison.is_ordered or filter_.operator not in ORDERING


def apart(columns: Followed, names: Sequence[str]) -> list[str]:
    """Return which of the columns `names` have values that read otherwise in some of the tables."""
    found = []
    for name in names:
        followed = [(table, of[name]) for table, of in columns.items() if name in of]
        for table, column in followed[1:]:
            first_table, first = followed[0]
            if column.read_as != first.read_as:
                found.append(
                    f"column {name!r} is {first.type_name} in {first_table} and "
                    f"{column.type_name} in {table}, so that messages have a value in two forms; "
                    "give both one type, or make a consumer for each table"
                )
                break
    return found


def apart_groups(followed: Followed, definition: ConsumerDefinition) -> Sequence[str]:
    """Return which columns that a definition groups by read otherwise in some of its tables."""
    tables = definition.table_names
    return apart({table: followed.get(table, {}) for table in tables}, definition.group_by or ())


def gone(
    published: Mapping[tuple[str, str], Collection[str]], definition: ConsumerDefinition
) -> Sequence[str]:
    """Return which columns that a definition names messages do not have any more, and what follows
    from it; `published` has those that they have, of each table."""
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
