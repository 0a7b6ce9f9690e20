"""Asks Postgres whether it would refuse the updates and deletes of a published table.

It is asked by EXPLAIN, which plans a statement and checks it as the statement itself would be, but
touches no row and fires no trigger.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.errors import (
    InsufficientPrivilege,
    InvalidColumnReference,
    LockNotAvailable,
    ObjectNotInPrerequisiteState,
)

from triggerkit.replication.publication.tables import SourceTable

#: No answer is waited for longer: somebody may hold a lock on the table for hours.
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '2s'"

#: A column to name in an update. That it is set to its default is always allowed.
_COLUMN = """
SELECT attname FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
ORDER BY attgenerated <> '', attnum LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class RefusalVerdict:
    """Why Postgres refuses, or why it could not be asked; neither when all is well."""

    refusal: str | None = None
    unasked: str | None = None


async def ask(connection: psycopg.AsyncConnection, table: SourceTable) -> RefusalVerdict:
    """Ask, in the transaction that `connection` is in, whether `table` can be written to."""
    cursor = await connection.execute(_COLUMN, [table.oid])
    row = await cursor.fetchone()
    if row is None:
        return RefusalVerdict()
    # Rows of children are not published with their parent; partitions are.
    only = sql.SQL("" if table.is_partitioned else "ONLY ")
    name = sql.Identifier(*table.name)
    for statement in (
        sql.SQL("EXPLAIN UPDATE {}{} SET {} = DEFAULT").format(only, name, sql.Identifier(row[0])),
        sql.SQL("EXPLAIN DELETE FROM {}{}").format(only, name),
    ):
        try:
            async with connection.transaction():
                await connection.execute(_LOCK_TIMEOUT)
                await connection.execute(statement)
        except (ObjectNotInPrerequisiteState, InvalidColumnReference) as error:
            detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
            return RefusalVerdict(refusal=f"{error.diag.message_primary}{detail}")
        except InsufficientPrivilege:
            return RefusalVerdict(
                unasked=f"{connection.info.user} may not update and delete its rows"
            )
        except LockNotAvailable:
            return RefusalVerdict(unasked="somebody holds a lock on it")
    return RefusalVerdict()
