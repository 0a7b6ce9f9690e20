"""Markers that go through the WAL: messages, or, on servers that stream none, rows of a table.

pgoutput delivers `pg_logical_emit_message` from Postgres 14 on. On 12 and 13 the one row of
`triggerkit.signal`, which is in the publication there, is written instead; capture gives both
alike.
"""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg import sql

from triggerkit.lsn import Lsn
from triggerkit.replication.codec.messages import LogicalMessage
from triggerkit.replication.codec.tuples import Tuple

#: Our own tables' schema: with FOR ALL TABLES they are published too, and must not feed us.
OWN_SCHEMA: Final = "triggerkit"

#: What the prefix of every marker begins with.
OWN_PREFIX: Final = "triggerkit."

#: The marker table, by its name in `OWN_SCHEMA`.
TABLE: Final = "signal"

#: The first server version whose pgoutput delivers messages.
MESSAGES_FROM: Final = 140000

#: No marker waits for a standby: where that is absent, it would forever.
_EMIT = """
SELECT txid_current(), set_config('synchronous_commit', 'local', true),
    pg_logical_emit_message(true, %s, %s)
"""

_WRITE = """
INSERT INTO triggerkit.signal AS s (id, prefix, content) VALUES (1, %s, %s)
ON CONFLICT (id) DO UPDATE SET prefix = excluded.prefix, content = excluded.content
RETURNING txid_current(), set_config('synchronous_commit', 'local', true)
"""

#: Made only where it is missing: `IF NOT EXISTS` asks for the privilege all the same.
_MISSING = "SELECT to_regnamespace('triggerkit') IS NULL, to_regclass('triggerkit.signal') IS NULL"

_CREATE_SCHEMA = "CREATE SCHEMA IF NOT EXISTS triggerkit"

_CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS triggerkit.signal (id int PRIMARY KEY, prefix text, content text)
"""

_PUBLISHED = """
SELECT FROM pg_publication_tables
WHERE pubname = %s AND schemaname = 'triggerkit' AND tablename = 'signal'
"""

_ADD = "ALTER PUBLICATION {} ADD TABLE triggerkit.signal"


async def emit(connection: psycopg.AsyncConnection, prefix: str, content: str) -> int:
    """Send a marker and return the 64-bit id of the transaction that carries it.

    `connection` is in autocommit mode.

    Raises:
        psycopg.errors.UndefinedTable: the server needs the marker table, and `apply` was not run.
    """
    statement = _EMIT if connection.info.server_version >= MESSAGES_FROM else _WRITE
    cursor = await connection.execute(statement, [prefix, content])
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def make_table(connection: psycopg.AsyncConnection) -> None:
    """Make the marker table where the server needs it and it is missing."""
    if connection.info.server_version >= MESSAGES_FROM:
        return
    cursor = await connection.execute(_MISSING)
    [(lacks_schema, lacks_table)] = await cursor.fetchall()
    if lacks_schema:
        await connection.execute(_CREATE_SCHEMA)
    if lacks_table:
        await connection.execute(_CREATE_TABLE)


async def missing_publication(
    connection: psycopg.AsyncConnection, publication: str
) -> sql.Composed | None:
    """Return the statement that puts the marker table into `publication`, None if nothing is
    missing."""
    if connection.info.server_version >= MESSAGES_FROM:
        return None
    cursor = await connection.execute(_PUBLISHED, [publication])
    if await cursor.fetchone() is not None:
        return None
    return sql.SQL(_ADD).format(sql.Identifier(publication))


def marker_of(row: Tuple) -> LogicalMessage | None:
    """Return the marker that a row of the marker table carries, as the message it stands for."""
    if len(row) != 3:
        return None
    _, prefix, content = row
    if not isinstance(prefix, bytes) or not isinstance(content, bytes):
        return None
    return LogicalMessage(True, Lsn(0), prefix.decode(), content)
