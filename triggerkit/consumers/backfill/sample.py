"""A message of a row that somebody picks, to try a task with: as if a backfill had read it."""

from __future__ import annotations

import psycopg
from psycopg import sql

from triggerkit.consumers.backfill.current_rows import Message, current_messages
from triggerkit.consumers.backfill.fault import may_not_read
from triggerkit.consumers.backfill.table_facts import key_of
from triggerkit.consumers.definition import TableName
from triggerkit.errors import PreflightFailed, UnknownRow
from triggerkit.replication.publication.tables import is_published

#: The database, and the consumer where there is one of this name.
_WHERE = """
SELECT d.id, d.name, c.id, d.publication_name FROM triggerkit.databases d
LEFT JOIN triggerkit.consumers c ON c.database_id = d.id AND c.name = %s
ORDER BY c.id NULLS LAST, d.id LIMIT 1
"""


async def sample_message(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    table: TableName,
    key: str | None,
    consumer: str,
) -> Message:
    """Return a message of the row with this key, its values joined by commas; without one, of the
    row with the greatest key.

    Raises:
        PreflightFailed: the table is not there, has no primary key, or is not published.
        UnknownRow: there is no such row.
    """
    columns = await key_of(source, table)
    if not columns:
        raise PreflightFailed(f"table {table} does not exist, or has no primary key")
    row = await (await state.execute(_WHERE, [consumer])).fetchone()
    if row is None:
        raise PreflightFailed("no database is captured yet; run: triggerkit apply")
    if not await is_published(source, row[3], (table.schema, table.name)):
        raise PreflightFailed(
            f"table {table} is not published, so that no task gets its rows; a task or consumer "
            "that follows it has it published: triggerkit apply"
        )
    values = await _greatest(source, table, columns) if key is None else _values(key, columns)
    metadata = {
        "table_schema": table.schema,
        "table_name": table.name,
        "record_pks": values,
        "idempotency_key": f"sample.{consumer}.{table}:{','.join(values)}",
        "database": {"id": str(row[0]), "name": row[1]},
        "consumer": {"id": str(row[2] or 0), "name": consumer},
    }
    [message] = await current_messages(source, state, [{"metadata": metadata}])
    if message["action"] == "delete":
        raise UnknownRow(f"{table} has no row {','.join(values)}")
    return message


def _values(key: str, columns: list[str]) -> list[str]:
    values = [key] if len(columns) == 1 else key.split(",")
    if len(values) != len(columns):
        raise UnknownRow(f"the key has the columns {', '.join(columns)}: join their values by ,")
    return values


async def _greatest(
    source: psycopg.AsyncConnection, table: TableName, columns: list[str]
) -> list[str]:
    """Return the greatest key, which the key's index has at hand."""
    names = [sql.Identifier(name) for name in columns]
    query = sql.SQL("SELECT {} FROM {} ORDER BY {} LIMIT 1").format(
        sql.SQL(", ").join(sql.SQL("{}::text").format(name) for name in names),
        sql.Identifier(*table),
        sql.SQL(", ").join(sql.SQL("{} DESC").format(name) for name in names),
    )
    try:
        row = await (await source.execute(query)).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        raise may_not_read(table) from None
    if row is None:
        raise UnknownRow(f"{table} has no rows yet")
    return [str(value) for value in row]
