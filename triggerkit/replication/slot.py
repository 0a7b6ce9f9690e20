"""The publication and the replication slot of a source database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import psycopg
from psycopg import sql

from triggerkit.errors import PreflightFailed
from triggerkit.replication import wal_marker

PUBLICATION = "triggerkit"

#: The first server version that publishes a partitioned table's changes under its own name.
PARTITIONS_BY_ROOT = 130000


def slot_name_for(database: str) -> str:
    """Return the slot's name for a database: slots are named across the whole server."""
    return f"triggerkit_{re.sub(r'[^a-z0-9_]', '_', database.lower())}"[:63]


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """The identity of a source database: it changes when the server is replaced."""

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


#: Whether the stream can tell a table's rows apart. A deferrable primary key identifies nothing for
#: the server, nor does the place of an index that was dropped; and where another index takes the
#: primary key's place, deletes do not carry the key that the existing rows are read by.
_TABLE = """
SELECT c.relkind = 'p', c.relpersistence = 'p', k.indexrelid IS NOT NULL, c.relreplident::text,
    CASE c.relreplident WHEN 'f' THEN true WHEN 'd' THEN coalesce(k.indimmediate, false)
    WHEN 'i' THEN EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident
        AND (k.indkey::int2[])[0:k.indnkeyatts - 1] <@ (i.indkey::int2[])[0:i.indnkeyatts - 1])
    ELSE false END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index k ON k.indrelid = c.oid AND k.indisprimary
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')
"""

_IDENTITIES = {"d": "default", "f": "full", "i": "index", "n": "nothing"}


class Fault(NamedTuple):
    """A problem, and the SQL that mends it."""

    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table of the source. `identity` is the replica identity's kind; `identified` whether it
    is enough to follow updates and deletes by."""

    name: tuple[str, str]
    partitioned: bool
    logged: bool
    has_key: bool
    identity: str
    identified: bool

    def fault(self) -> Fault | None:
        """Why the table cannot be followed, None if it can."""
        table = f"ALTER TABLE {sql.Identifier(*self.name).as_string(None)}"
        if not self.logged:
            return Fault("is unlogged, so that nobody can follow it", f"{table} SET LOGGED;")
        if not self.has_key:
            return Fault(
                "has no primary key, so its changes cannot be kept in order",
                f"{table} ADD PRIMARY KEY (…);",
            )
        if self.identified:
            return None
        full = f"{table} REPLICA IDENTITY FULL;"
        if self.identity == "index":
            return Fault("has a REPLICA IDENTITY that lacks the primary key", full)
        if self.identity == "default":
            return Fault("has a deferrable primary key, which is no replica identity", full)
        return Fault(
            "has REPLICA IDENTITY NOTHING: publishing it would break its own UPDATE and DELETE",
            full,
        )


async def read_table(
    connection: psycopg.AsyncConnection, schema: str, table: str
) -> SourceTable | None:
    """Return the table as the catalog has it, None if there is none of this name."""
    cursor = await connection.execute(_TABLE, [schema, table])
    row = await cursor.fetchone()
    if row is None:
        return None
    partitioned, logged, has_key, identity, identified = row
    kind = _IDENTITIES[identity]
    return SourceTable((schema, table), partitioned, logged, has_key, kind, identified)


def create_publication(
    publication: str, tables: Sequence[tuple[str, str]], version: int
) -> sql.Composed:
    """Return the statement that makes `publication` hold `tables`, on a server of `version`."""
    create = sql.SQL("CREATE PUBLICATION {}").format(sql.Identifier(publication))
    if tables:
        names = sql.SQL(", ").join(sql.Identifier(*t) for t in tables)
        create = sql.SQL("{} FOR TABLE {}").format(create, names)
    if version >= PARTITIONS_BY_ROOT:
        # Changes of partitions come under the name of the table that a consumer follows.
        create = sql.SQL("{} WITH (publish_via_partition_root = true)").format(create)
    return create


async def ensure_publication(
    connection: psycopg.AsyncConnection, publication: str, tables: Iterable[tuple[str, str]]
) -> None:
    """Make `publication` hold `tables`; one that publishes all tables is used as it is.

    On a server that streams no messages it also gets the marker table.

    Raises:
        PreflightFailed: a table does not exist or cannot be followed, or the role may not do it.
    """
    wanted = [await _require_table(connection, *table) for table in sorted(set(tables))]
    await _ensure_tables(connection, publication, wanted)
    await wal_marker.make_table(connection)
    addition = await wal_marker.missing_publication(connection, publication)
    if addition is not None:
        await _change(connection, addition)


async def _ensure_tables(
    connection: psycopg.AsyncConnection, publication: str, wanted: Sequence[SourceTable]
) -> None:
    cursor = await connection.execute(
        "SELECT puballtables, coalesce((to_jsonb(p) ->> 'pubviaroot')::bool, false) "
        "FROM pg_publication p WHERE pubname = %s",
        [publication],
    )
    row = await cursor.fetchone()
    if row is None:
        names = [table.name for table in wanted]
        version = connection.info.server_version
        await _change(connection, create_publication(publication, names, version))
        return
    all_tables, by_root = row
    name = sql.Identifier(publication)
    if not by_root and any(table.partitioned for table in wanted):
        raise PreflightFailed(
            f"publication {publication} publishes partitions under their own names; run: "
            f"ALTER PUBLICATION {name.as_string(None)} SET (publish_via_partition_root = true);"
        )
    if all_tables:
        return
    cursor = await connection.execute(
        "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s", [publication]
    )
    published = set(await cursor.fetchall())
    for table in wanted:
        if table.name not in published:
            await _change(
                connection,
                sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(
                    name, sql.Identifier(*table.name)
                ),
            )


async def _change(connection: psycopg.AsyncConnection, statement: sql.Composed) -> None:
    try:
        await connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        raise PreflightFailed(
            f"the role {connection.info.user} may not change the publication "
            f"({error.diag.message_primary}); let a superuser run: "
            f"{statement.as_string(connection)};"
        ) from error


async def _require_table(
    connection: psycopg.AsyncConnection, schema: str, table: str
) -> SourceTable:
    found = await read_table(connection, schema, table)
    if found is None:
        raise PreflightFailed(
            f"table {schema}.{table} does not exist; create it, or correct the consumer's table"
        )
    fault = found.fault()
    if fault is not None:
        raise PreflightFailed(f"table {schema}.{table} {fault.problem}; run: {fault.remedy}")
    if found.partitioned and connection.info.server_version < PARTITIONS_BY_ROOT:
        raise PreflightFailed(
            f"table {schema}.{table} is partitioned, and this server publishes only its "
            "partitions, under their own names; follow those, or use Postgres 13 or later"
        )
    return found


async def ensure_slot(connection: psycopg.AsyncConnection, slot_name: str) -> bool:
    """Make the slot if it is missing and say whether it was made.

    Raises:
        PreflightFailed: the server has no free slot, or the role may not replicate.
    """
    cursor = await connection.execute(
        "SELECT FROM pg_replication_slots WHERE slot_name = %s", [slot_name]
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
            "server, or drop an unused slot (SELECT * FROM pg_replication_slots)"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise PreflightFailed(
            "the role may not create a replication slot; let a superuser run: ALTER ROLE "
            f"{sql.Identifier(connection.info.user).as_string(None)} REPLICATION;"
        ) from error
    return True


async def drop_slot(connection: psycopg.AsyncConnection, slot_name: str) -> None:
    """Drop the slot; changes from now on are not kept for us."""
    await connection.execute("SELECT pg_drop_replication_slot(%s)", [slot_name])
