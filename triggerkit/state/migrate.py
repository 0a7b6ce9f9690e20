"""The schema `triggerkit`: numbered migrations, forward only, each in a transaction of its own."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files

import psycopg
from psycopg import sql

from triggerkit.errors import PreflightFailed, TriggerkitError
from triggerkit.state.connect import connect

SCHEMA = "triggerkit"

#: Advisory lock held while migrating, so that two processes starting together do it once.
MIGRATION_LOCK = 0x74726B_01

_BOOTSTRAP = """
CREATE SCHEMA IF NOT EXISTS triggerkit;
CREATE TABLE IF NOT EXISTS triggerkit.migrations (
    version     int PRIMARY KEY,
    name        text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file of `state/migrations`."""

    version: int
    name: str
    statements: str


def migrations() -> list[Migration]:
    """Return all migrations this version of triggerkit knows, in order."""
    found = []
    for file in files("triggerkit.state").joinpath("migrations").iterdir():
        number, _, rest = file.name.partition("_")
        if rest.endswith(".sql"):
            found.append(Migration(int(number), rest.removesuffix(".sql"), file.read_text()))
    return sorted(found, key=lambda m: m.version)


def script() -> str:
    """Return the whole state schema as SQL, as `triggerkit sql` prints it."""
    parts = [_BOOTSTRAP.strip(), "SET search_path = triggerkit, pg_catalog;"]
    for migration in migrations():
        parts.append(f"-- migration {migration.version}: {migration.name}")
        parts.append(migration.statements.strip())
        parts.append(
            "INSERT INTO migrations (version, name) "
            f"VALUES ({migration.version}, '{migration.name}');"
        )
    return "\n\n".join(parts) + "\n"


async def applied_version(connection: psycopg.AsyncConnection) -> int:
    """Return the last migration applied there, 0 when the schema does not exist."""
    cursor = await connection.execute("SELECT to_regclass('triggerkit.migrations') IS NOT NULL")
    row = await cursor.fetchone()
    if row is None or not row[0]:
        return 0
    cursor = await connection.execute("SELECT coalesce(max(version), 0) FROM triggerkit.migrations")
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


def version_problem(version: int) -> str | None:
    """Return what is wrong with a schema of this version, with the remedy; None for our own."""
    latest = migrations()[-1].version
    if version == latest:
        return None
    if version > latest:
        return (
            f"the schema triggerkit is of version {version}, newer than the {latest} that this "
            "triggerkit knows; install the release that made it: pip install --upgrade triggerkit"
        )
    known = f"is of version {version}, and {latest} is needed" if version else "is missing"
    return f"the schema triggerkit {known}; run: triggerkit upgrade"


async def schema_problem(dsn: str) -> str | None:
    """Return what is wrong with the version of the schema there; None where that cannot be told."""
    with suppress(TriggerkitError, psycopg.Error):
        async with await connect(dsn, "triggerkit version") as state:
            return version_problem(await applied_version(state))
    return None


async def migrate(connection: psycopg.AsyncConnection) -> list[Migration]:
    """Apply what is missing and return it.

    `connection` must be in autocommit mode and free; it is left so.

    Raises:
        PreflightFailed: a later release made the schema.
    """
    await connection.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
    try:
        version = await applied_version(connection)
        missing = [m for m in migrations() if m.version > version]
        if not missing and (problem := version_problem(version)) is not None:
            raise PreflightFailed(problem)
        if missing:
            await connection.execute(_BOOTSTRAP)
        for migration in missing:
            async with connection.transaction():
                await connection.execute(
                    sql.SQL("SET LOCAL search_path = {}, pg_catalog").format(sql.Identifier(SCHEMA))
                )
                await connection.execute(migration.statements)
                await connection.execute(
                    "INSERT INTO triggerkit.migrations (version, name) VALUES (%s, %s)",
                    [migration.version, migration.name],
                )
        return missing
    finally:
        await connection.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])
