"""The tables of the source that can be chosen to be followed."""

from __future__ import annotations

import psycopg

from triggerkit.configuration.table_name import TableName

#: Tables that are listed at most.
MOST_TABLES = 300

#: The application's, whose changes are in the WAL; a partition is followed by its whole table.
_TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'triggerkit')
ORDER BY n.nspname <> 'public', 1, 2 LIMIT %s
"""


async def known_tables(source: psycopg.AsyncConnection) -> list[TableName]:
    """Return the tables by name, those of `public` first, `MOST_TABLES` at most."""
    cursor = await source.execute(_TABLES, [MOST_TABLES])
    return [TableName(*row) for row in await cursor.fetchall()]
