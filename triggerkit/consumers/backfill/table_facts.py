"""Looks up what has to be known of a table before it is read: its key, policies and operators."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from triggerkit.consumers.definition import TableName
from triggerkit.errors import PreflightFailed

_KEY_ORDER = """
SELECT a.attname FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, ord)
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
WHERE i.indisprimary AND n.nspname = %s AND c.relname = %s AND k.ord <= i.indnkeyatts
ORDER BY k.ord
"""

#: Rows of children (INHERITS) are none of the table's, nor does the stream have them as such.
_IS_PARTITIONED = """
SELECT c.relkind = 'p' FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s
"""

#: Row security is in effect when a policy may hide rows from this very role.
_POLICIES = """
SELECT row_security_active(c.oid), current_user::text FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s
"""

#: Where the operators of an extension's types are, such as citext's: without their schema in the
#: path, a comparison would silently be by another order than ORDER BY is.
_TYPE_SCHEMAS = """
SELECT DISTINCT tn.nspname FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
JOIN pg_namespace tn ON tn.oid = b.typnamespace
WHERE n.nspname = %s AND c.relname = %s AND a.attname = ANY (%s)
  AND b.typtype = 'b' AND tn.nspname <> 'pg_catalog'
"""


async def key_of(connection: psycopg.AsyncConnection, table: TableName) -> list[str]:
    """Return the columns of the table's primary key, in order; none without one."""
    cursor = await connection.execute(_KEY_ORDER, table)
    return [name for (name,) in await cursor.fetchall()]


async def is_partitioned(connection: psycopg.AsyncConnection, table: TableName) -> bool:
    """Return whether the table's rows are in partitions."""
    cursor = await connection.execute(_IS_PARTITIONED, table)
    return await cursor.fetchone() == (True,)


async def refuse_policies(connection: psycopg.AsyncConnection, table: TableName) -> None:
    """Refuse a table that policies hide rows of.

    Raises:
        PreflightFailed: they hide rows from the role.
    """
    cursor = await connection.execute(_POLICIES, table)
    row = await cursor.fetchone()
    if row and row[0]:
        role = sql.Identifier(row[1]).as_string(connection)
        raise PreflightFailed(
            f"row security hides rows of {table} from {row[1]}; let it read all rows "
            f"with ALTER ROLE {role} BYPASSRLS"
        )


async def find_operators(
    connection: psycopg.AsyncConnection, table: TableName, columns: Sequence[str]
) -> None:
    """Have the session find the operators by which `columns` are compared."""
    cursor = await connection.execute(_TYPE_SCHEMAS, [*table, list(columns)])
    schemas = [name for (name,) in await cursor.fetchall()]
    if schemas:
        path = sql.SQL(", ").join(map(sql.Identifier, ["pg_catalog", *schemas]))
        await connection.execute(sql.SQL("SET search_path = {}").format(path))
