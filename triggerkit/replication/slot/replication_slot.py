"""The replication slot of a source database, and the database's identity."""

from __future__ import annotations

import asyncio
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

#: The first version whose slots a standby can take over, as every slot of ours may be.
FAILOVER_FROM = 170000

_CREATE = "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')"

#: Neither temporary nor with prepared transactions, but for a failover.
_CREATE_FOR_FAILOVER = (
    "SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, false, true)"
)

#: A slot of a standby begins at a snapshot of the primary's, which logs one by itself within
#: 15 seconds of a change; asked for so often, in seconds, and waited for so long.
_SNAPSHOT_S = 1.0
_STANDBY_S = 60.0

#: What is written so that the primary logs a snapshot soon.
_CHANGE = "SELECT pg_logical_emit_message(true, 'triggerkit.snapshot', '')"


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


async def ensure_slot(
    connection: psycopg.AsyncConnection,
    slot_name: str,
    primary: psycopg.AsyncConnection | None = None,
) -> bool:
    """Make the slot if it is missing and say whether it was made; on a standby with the help of its
    `primary`.

    Raises:
        PreflightFailed: the server has no free slot, the role may not replicate, or the standby
            does not follow its primary.
    """
    cursor = await connection.execute(
        "SELECT FROM pg_replication_slots WHERE slot_name = %s", [slot_name]
    )
    if await cursor.fetchone() is not None:
        return False
    try:
        await _create_slot(connection, slot_name, primary or connection)
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


async def _create_slot(
    connection: psycopg.AsyncConnection, slot_name: str, primary: psycopg.AsyncConnection
) -> None:
    cursor = await connection.execute("SELECT pg_is_in_recovery()")
    if await cursor.fetchone() == (True,):
        await _create_on_standby(connection, slot_name, primary)
    elif connection.info.server_version >= FAILOVER_FROM:
        await connection.execute(_CREATE_FOR_FAILOVER, [slot_name])
    else:
        await connection.execute(_CREATE, [slot_name])


async def _create_on_standby(
    standby: psycopg.AsyncConnection, slot_name: str, primary: psycopg.AsyncConnection
) -> None:
    creating = asyncio.create_task(standby.execute(_CREATE, [slot_name]))
    try:
        async with asyncio.timeout(_STANDBY_S):
            while not creating.done():
                await _ask_for_snapshot(primary)
                await asyncio.wait({creating}, timeout=_SNAPSHOT_S)
    except TimeoutError:
        raise PreflightFailed(
            f"the standby did not make the replication slot {slot_name} within {_STANDBY_S:g} s: "
            "it does not follow its primary, or transactions there have been open for longer, as "
            "pg_stat_activity shows; end those, or see `triggerkit check`"
        ) from None
    finally:
        creating.cancel()
        await asyncio.wait({creating})
    await creating


async def _ask_for_snapshot(primary: psycopg.AsyncConnection) -> None:
    try:
        await primary.execute("SELECT pg_log_standby_snapshot()")
    except psycopg.errors.InsufficientPrivilege:
        # Without a change it would log none by itself.
        await primary.execute(_CHANGE)


async def drop_slot(connection: psycopg.AsyncConnection, slot_name: str) -> None:
    """Drop the slot; changes from now on are not kept for us."""
    await connection.execute("SELECT pg_drop_replication_slot(%s)", [slot_name])
