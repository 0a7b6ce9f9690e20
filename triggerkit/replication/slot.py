"""The publication and the replication slot of a source database."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import psycopg
from psycopg import sql

from triggerkit.errors import PreflightFailed

PUBLICATION = "triggerkit"


def slot_name_for(database: str) -> str:
    """The slot's name for a database: slots are named across the whole server."""
    return f"triggerkit_{re.sub(r'[^a-z0-9_]', '_', database.lower())}"[:63]


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """What tells a source database from every other: it changes when the server is replaced."""

    database: str
    system_identifier: str
    timeline: int


async def identify(connection: psycopg.AsyncConnection) -> SourceIdentity:
    """Ask the server who it is."""
    cursor = await connection.execute(
        "SELECT current_database(), s.system_identifier::text, c.timeline_id "
        "FROM pg_control_system() s, pg_control_checkpoint() c"
    )
    row = await cursor.fetchone()
    assert row is not None
    return SourceIdentity(*row)


async def require_logical(connection: psycopg.AsyncConnection) -> None:
    """Refuse a server that cannot be captured from.

    Raises:
        PreflightFailed: too old, or `wal_level` is not logical.
    """
    version = connection.info.server_version
    if version < 120000:
        raise PreflightFailed(
            f"the server is Postgres {version // 10000}; change capture needs 12 or later"
        )
    cursor = await connection.execute("SHOW wal_level")
    row = await cursor.fetchone()
    if row is None or row[0] != "logical":
        found = row[0] if row else "unknown"
        raise PreflightFailed(
            f"wal_level is {found}, not logical; run: ALTER SYSTEM SET wal_level = 'logical'; "
            "and restart the server"
        )


async def ensure_publication(
    connection: psycopg.AsyncConnection, publication: str, tables: Iterable[tuple[str, str]]
) -> None:
    """Make `publication` hold `tables`; one that publishes all tables is used as it is.

    Raises:
        PreflightFailed: a table does not exist.
    """
    wanted = sorted(set(tables))
    for schema, table in wanted:
        await _require_table(connection, schema, table)
    cursor = await connection.execute(
        "SELECT puballtables FROM pg_publication WHERE pubname = %s", [publication]
    )
    row = await cursor.fetchone()
    if row is None:
        names = sql.SQL(", ").join(sql.Identifier(*t) for t in wanted)
        create = sql.SQL("CREATE PUBLICATION {}").format(sql.Identifier(publication))
        if wanted:
            create = sql.SQL("{} FOR TABLE {}").format(create, names)
        await connection.execute(create)
        return
    if row[0]:
        return
    cursor = await connection.execute(
        "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s", [publication]
    )
    published = set(await cursor.fetchall())
    for table_name in wanted:
        if table_name not in published:
            await connection.execute(
                sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(
                    sql.Identifier(publication), sql.Identifier(*table_name)
                )
            )


async def _require_table(connection: psycopg.AsyncConnection, schema: str, table: str) -> None:
    cursor = await connection.execute(
        "SELECT c.relreplident, EXISTS (SELECT FROM pg_index i "
        "WHERE i.indrelid = c.oid AND i.indisprimary) "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')",
        [schema, table],
    )
    row = await cursor.fetchone()
    if row is None:
        raise PreflightFailed(
            f"table {schema}.{table} does not exist; create it, or correct the consumer's table"
        )
    identity, has_key = row
    if not has_key:
        raise PreflightFailed(
            f"table {schema}.{table} has no primary key, so its changes cannot be kept in order; "
            f"add one: ALTER TABLE {schema}.{table} ADD PRIMARY KEY (…)"
        )
    if identity == "n":
        raise PreflightFailed(
            f"table {schema}.{table} has REPLICA IDENTITY NOTHING: publishing it would break its "
            f"own UPDATE and DELETE; run: ALTER TABLE {schema}.{table} REPLICA IDENTITY FULL"
        )


async def ensure_slot(connection: psycopg.AsyncConnection, slot_name: str) -> bool:
    """Make the slot if it is missing and say whether it was made.

    Raises:
        PreflightFailed: the server has no free slot, or the role may not replicate.
    """
    cursor = await connection.execute(
        "SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s", [slot_name]
    )
    if await cursor.fetchone() is not None:
        return False
    try:
        await connection.execute(
            "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot_name]
        )
    except psycopg.errors.ConfigurationLimitExceeded as error:
        raise PreflightFailed(
            "all replication slots are in use; raise max_replication_slots and restart the "
            "server, or drop a slot nobody uses (SELECT * FROM pg_replication_slots)"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise PreflightFailed(
            "the role may not create a replication slot; run: ALTER ROLE … REPLICATION"
        ) from error
    return True


async def drop_slot(connection: psycopg.AsyncConnection, slot_name: str) -> None:
    """Drop the slot; changes from now on are not kept for us."""
    await connection.execute("SELECT pg_drop_replication_slot(%s)", [slot_name])
