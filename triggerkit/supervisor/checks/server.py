"""Check what the source's server allows: its version and settings, the role's rights, pgvector."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from triggerkit.supervisor.checks.check import Check, quoted
from triggerkit.supervisor.checks.provider import Provider, grant_replication, set_parameter

#: The oldest server that can be captured from.
MIN_POSTGRES = 120000

#: The oldest standby that can be captured from.
STANDBY_FROM = 160000

#: How many more slots or senders a server is told to have than it has now.
SPARE = 10

#: `rds_member` is null but on Amazon RDS, where a role's membership stands for the privilege.
_SERVER = """
SELECT current_user AS role, r.rolreplication OR r.rolsuper AS may_replicate,
    (SELECT pg_has_role(m.oid, 'MEMBER') FROM pg_roles m WHERE m.rolname = 'rds_replication')
        AS rds_member,
    current_setting('wal_level') AS wal_level,
    current_setting('max_replication_slots')::int AS max_slots,
    (SELECT count(*) FROM pg_replication_slots) AS slots,
    current_setting('max_wal_senders')::int AS max_senders,
    (SELECT count(*) FROM pg_stat_replication) AS senders,
    EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %(slot)s) AS has_slot,
    EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %(slot)s AND active) AS is_streamed
FROM pg_roles r WHERE r.rolname = current_user
"""

_RIGHTS = """
SELECT rolname, rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user
"""

_PGVECTOR = "SELECT installed_version FROM pg_available_extensions WHERE name = 'vector'"


@dataclass(frozen=True, slots=True)
class _ServerFacts:
    role: str
    may_replicate: bool
    rds_member: bool | None
    wal_level: str
    max_slots: int
    slots: int
    max_senders: int
    senders: int
    has_slot: bool
    is_streamed: bool


async def check_server(
    source: psycopg.AsyncConnection, slot_name: str, provider: Provider
) -> list[Check]:
    """Check whether the server can be captured from, by the slot `slot_name` or by a new one."""
    async with source.cursor(row_factory=class_row(_ServerFacts)) as cursor:
        await cursor.execute(_SERVER, {"slot": slot_name})
        server = await cursor.fetchone()
    assert server is not None
    return [
        _version(source.info.server_version),
        _wal_level(server, provider),
        _privilege(server, provider),
        *_room(server, provider),
    ]


def _version(version: int) -> Check:
    text = f"{version // 10000}.{version % 10000}"
    remedy = "use a server of version 12 or later"
    return Check("postgres version", version >= MIN_POSTGRES, text, remedy)


def _wal_level(server: _ServerFacts, provider: Provider) -> Check:
    level = server.wal_level
    return Check("wal_level", level == "logical", level, provider.logical)


def _privilege(server: _ServerFacts, provider: Provider) -> Check:
    remedy = grant_replication(provider, server.role)
    if server.rds_member is not None:
        remedy = f"GRANT rds_replication TO {quoted(server.role)};"
    ok = server.may_replicate or bool(server.rds_member)
    return Check("replication privilege", ok, server.role, remedy)


def _room(server: _ServerFacts, provider: Provider) -> Iterator[Check]:
    """Room for our slot, unless it is there, and for its stream, unless that runs."""
    free = server.max_slots - server.slots
    if not server.has_slot:
        more = set_parameter(provider, "max_replication_slots", server.max_slots + SPARE)
        yield Check(
            "free replication slots",
            free > 0,
            f"{free} of {server.max_slots}",
            f"{more}; or drop a slot of pg_replication_slots that nobody uses",
        )
    free = server.max_senders - server.senders
    yield Check(
        "free WAL senders",
        server.is_streamed or free > 0,
        f"{free} of {server.max_senders}",
        set_parameter(provider, "max_wal_senders", server.max_senders + SPARE),
    )


async def check_connection(source: psycopg.AsyncConnection, provider: Provider) -> list[Check]:
    """Check that `source` leads to a server that can be written to, with no pooler in between."""
    cursor = await source.execute("SELECT pg_is_in_recovery(), pg_backend_pid()")
    row = await cursor.fetchone()
    assert row is not None
    is_standby, pid = row
    checks = []
    if is_standby:
        detail = "it is a hot standby, which takes no publication, slot or markers"
        remedy = "set DATABASE_URL to the primary's address"
        if source.info.server_version >= STANDBY_FROM:
            remedy += ", and TRIGGERKIT_STANDBY_URL to this one, to stream from it"
        checks.append(Check("primary server", False, detail, remedy))
    # A pooler tells each client a process of its own making.
    if pid != source.info.backend_pid:
        detail = "a pooler answers: it passes on neither replication nor what is set for a session"
        remedy = f"set DATABASE_URL to {provider.direct}"
        checks.append(Check("direct connection", False, detail, remedy))
    return checks


async def check_rights(source: psycopg.AsyncConnection) -> Check:
    """Advise against a role that may do more than capture needs."""
    row = await (await source.execute(_RIGHTS)).fetchone()
    assert row is not None
    role, *rights = row
    names = ("a superuser", "one that makes roles", "one that makes databases")
    too_many = [name for name, has in zip(names, rights, strict=True) if has]
    detail = f"{role} is {', '.join(too_many)}" if too_many else role
    remedy = "triggerkit roles  # prints the SQL of roles with the least rights"
    return Check("least rights", not too_many, detail, remedy, required=False)


async def check_pgvector(source: psycopg.AsyncConnection, provider: Provider) -> Check:
    """Check whether embeddings can be stored; advice, since a project may have none."""
    cursor = await source.execute(_PGVECTOR)
    row = await cursor.fetchone()
    if row is None:
        package = f"postgresql-{source.info.server_version // 10000}-pgvector"
        remedy = (
            f"apt-get install {package}  # or see https://github.com/pgvector/pgvector, "
            "then CREATE EXTENSION vector;"
        )
        if provider.name:
            remedy = f"choose a version of Postgres for which {provider.name} has it"
        detail = "not on this server; only tasks that store vectors need it"
        return Check("pgvector", False, detail, remedy, required=False)
    if row[0] is None:
        detail = "not in this database; only tasks that store vectors need it"
        return Check("pgvector", False, detail, "CREATE EXTENSION vector;", required=False)
    return Check("pgvector", True, row[0], required=False)
