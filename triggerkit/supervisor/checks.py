"""Preflight: what must hold before a row can run its task, each with its remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
import redis
import redis.asyncio

from triggerkit.consumers.apply import Declared
from triggerkit.errors import ConfigurationError
from triggerkit.replication.slot import slot_name_for
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, redacted
from triggerkit.state.migrate import applied_version, migrations

#: The oldest servers that are supported.
MIN_POSTGRES = 120000
MIN_REDIS = (6, 2)

_ROLE = """
SELECT rolreplication OR rolsuper, current_setting('max_replication_slots')::int
    - (SELECT count(*) FROM pg_replication_slots),
    current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication),
    EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %s),
    current_user
FROM pg_roles WHERE rolname = current_user
"""

_TABLE = """
SELECT c.relreplident, EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary),
    has_table_privilege(c.oid, 'SELECT')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One fact looked at. `remedy` is the SQL, setting or command that mends it when not `ok`."""

    name: str
    ok: bool
    detail: str
    remedy: str | None = None


async def run_checks(settings: Settings, declared: Sequence[Declared]) -> list[Check]:
    """All checks, as far as they can be made.

    Raises:
        CannotConnect: Postgres does not answer.
        ConfigurationError: a URL is not set or not one.
    """
    async with await connect(settings.source_dsn, "triggerkit check") as source:
        checks = [
            Check("postgres reachable", True, redacted(settings.source_dsn)),
            *await _server(source),
            *await _tables(source, declared),
        ]
    checks.append(await _state(settings))
    checks += await _redis(settings)
    return checks


async def _server(source: psycopg.AsyncConnection) -> list[Check]:
    version = source.info.server_version
    cursor = await source.execute("SELECT current_setting('wal_level'), current_database()")
    row = await cursor.fetchone()
    assert row is not None
    wal_level, database = row
    slot = slot_name_for(database)
    cursor = await source.execute(_ROLE, [slot])
    role = await cursor.fetchone()
    assert role is not None
    may_replicate, free_slots, free_senders, has_slot, user = role
    return [
        Check(
            "postgres version",
            version >= MIN_POSTGRES,
            f"{version // 10000}.{version % 10000}",
            "use a server of version 12 or later",
        ),
        Check(
            "wal_level",
            wal_level == "logical",
            wal_level,
            "ALTER SYSTEM SET wal_level = 'logical'; then restart the server",
        ),
        Check(
            "replication privilege",
            may_replicate,
            user,
            f'ALTER ROLE "{user}" REPLICATION;',
        ),
        Check(
            "replication slot",
            has_slot or free_slots > 0,
            slot if has_slot else f"{free_slots} free",
            f"ALTER SYSTEM SET max_replication_slots = {10}; then restart the server",
        ),
        Check(
            "wal senders",
            has_slot or free_senders > 0,
            f"{free_senders} free",
            f"ALTER SYSTEM SET max_wal_senders = {10}; then restart the server",
        ),
    ]


async def _tables(source: psycopg.AsyncConnection, declared: Sequence[Declared]) -> list[Check]:
    checks = []
    for table in sorted({t for d in declared for t in d.definition.table_names}):
        cursor = await source.execute(_TABLE, table)
        row = await cursor.fetchone()
        name = f"table {table}"
        if row is None:
            checks.append(Check(name, False, "missing", f"CREATE TABLE {table} (…);"))
            continue
        identity, has_key, readable = row
        kind = {"d": "default", "f": "full", "i": "index", "n": "nothing"}[identity]
        if not has_key:
            remedy = f"ALTER TABLE {table} ADD PRIMARY KEY (…);"
            checks.append(Check(name, False, "no primary key", remedy))
        elif not readable:
            remedy = f"GRANT SELECT ON {table} TO CURRENT_USER;"
            checks.append(Check(name, False, "not readable", remedy))
        else:
            remedy = f"ALTER TABLE {table} REPLICA IDENTITY FULL;"
            checks.append(Check(name, identity != "n", f"replica identity {kind}", remedy))
    return checks


async def _state(settings: Settings) -> Check:
    async with await connect(settings.state_dsn, "triggerkit check") as state:
        version, latest = await applied_version(state), migrations()[-1].version
    detail = f"version {version} of {latest}"
    return Check("state schema", version == latest, detail, "triggerkit upgrade")


async def _redis(settings: Settings) -> list[Check]:
    try:
        client = redis.asyncio.Redis.from_url(settings.broker_dsn, socket_connect_timeout=5)
    except (ConfigurationError, ValueError) as error:
        return [Check("redis reachable", False, str(error), "set REDIS_URL")]
    try:
        info = await client.info()
    except (redis.RedisError, OSError) as error:
        remedy = "start Redis, or correct REDIS_URL"
        return [Check("redis reachable", False, str(error), remedy)]
    finally:
        await client.aclose()
    version = str(info["redis_version"])
    policy = str(info.get("maxmemory_policy", "noeviction"))
    return [
        Check(
            "redis version",
            tuple(map(int, version.split(".")[:2])) >= MIN_REDIS,
            version,
            "use Redis 6.2 or later",
        ),
        Check(
            "redis eviction policy",
            policy == "noeviction",
            policy,
            "CONFIG SET maxmemory-policy noeviction",
        ),
    ]
