"""The replication slot of a source database, and the database's identity."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg
from psycopg import sql

from triggerkit.errors import PreflightFailed
from triggerkit.state.reading import Reads, rows_of

#: The publication's name, unless another is given.
PUBLICATION = "triggerkit"

#: Bytes of a name in Postgres.
_LONGEST_NAME = 63


def slot_name_for(database: str, oid: int | None = None) -> str:
    """Return the slot's name for a database: slots are named across the whole server.

    A name that a slot cannot have as it is gets the database's OID, since others may become alike.
    """
    plain = f"triggerkit_{re.sub(r'[^a-z0-9_]', '_', database.lower())}"
    if oid is None or (plain == f"triggerkit_{database}" and len(plain) <= _LONGEST_NAME):
        return plain[:_LONGEST_NAME]
    suffix = f"_{oid}"
    return plain[: _LONGEST_NAME - len(suffix)] + suffix


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """The identity of a source database: it changes when the server is replaced."""

    database: str
    oid: int
    system_identifier: str
    timeline: int


async def identify(connection: Reads) -> SourceIdentity:
    """Ask the server who it is."""
    [row] = await rows_of(
        connection,
        "SELECT current_database(), d.oid::bigint, s.system_identifier::text, c.timeline_id "
        "FROM pg_control_system() s, pg_control_checkpoint() c, pg_database d "
        "WHERE d.datname = current_database()",
    )
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
