"""Say that a table or a column is not there, and which one was probably meant."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import NamedTuple

import psycopg

from triggerkit.configuration.table_name import table_text
from triggerkit.errors import closest, suggested
from triggerkit.state.reading import Reads, rows_of

#: The tables of the application, those of this name first. More are not looked through.
_TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_'
  AND n.nspname NOT IN ('information_schema', 'triggerkit')
ORDER BY lower(c.relname) <> lower(%s), n.nspname = 'public' DESC, 1, 2 LIMIT 5000
"""

#: What has rows that a person takes for a table's, and sends no changes.
_OTHER = """
SELECT CASE c.relkind WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view'
    WHEN 'f' THEN 'a foreign table' END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('v', 'm', 'f')
"""


class Missing(NamedTuple):
    """What there is instead of a table, and the name that was probably meant."""

    problem: str
    meant: str | None


async def missing_table(connection: Reads, table: tuple[str, str]) -> Missing:
    """Look for what was meant by the name of a table that is not there."""
    name = table[1].casefold()
    other, rows = await asyncio.gather(
        rows_of(connection, _OTHER, table), rows_of(connection, _TABLES, [name])
    )
    if other:
        return Missing(f"is {other[0][0]}, which sends no changes; name the tables it reads", None)
    alike = [row for row in rows if row[1].casefold() == name]
    known = [table_text(*row) for row in alike or rows]
    meant = known[0] if alike else closest(table_text(*table), known)
    return Missing("does not exist", meant)


async def no_table(connection: psycopg.AsyncConnection, table: tuple[str, str]) -> str:
    """Return the message that there is no such table, with the one that was probably meant."""
    problem, meant = await missing_table(connection, table)
    remedy = "create it, or correct the name" if meant is None else f"did you mean {meant}?"
    return f"table {table_text(*table)} {problem}; {remedy}"


def no_column(table: object, name: str, columns: Collection[str]) -> str:
    """Return the message that `table` has no column `name`, with those that it has."""
    listed = f"it has {', '.join(columns)}"
    return f"table {table} has no column {name!r}{suggested(name, columns) or ';'} {listed}"
