"""The schema `triggerkit`: numbered migrations, forward only, each in a transaction of its own."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files

import psycopg
from psycopg.errors import LockNotAvailable

from triggerkit.errors import PreflightFailed, TriggerkitError
from triggerkit.state.connect import connect

logger = logging.getLogger(__name__)

SCHEMA = "triggerkit"

#: Advisory lock held while migrating, so that two processes starting together do it once.
MIGRATION_LOCK = 0x74726B_01

#: A schema that is there already may belong to a role that can make none.
_SCHEMA = "CREATE SCHEMA IF NOT EXISTS triggerkit;"

#: Everybody who comes after a lock that is waited for waits, too: that is no more than a moment.
_IN_ITS_SCHEMA = "SET LOCAL search_path = triggerkit, pg_catalog; SET LOCAL lock_timeout = '500ms'"

#: Seconds between two tries at a migration whose locks others have.
AGAIN_S = 2.0

_HAS_SCHEMA = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'triggerkit')"

_BOOTSTRAP = """
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


def script(above: int = 0, *, has_schema: bool = False) -> str:
    """Return the state schema as SQL, as `triggerkit sql` prints it: all of it, or what those lack
    who have the migrations up to `above`."""
    missing = [migration for migration in migrations() if migration.version > above]
    if not missing:
        return ""
    parts = [] if has_schema else [_SCHEMA]
    parts += [_BOOTSTRAP.strip(), "SET search_path = triggerkit, pg_catalog;"]
    for migration in missing:
        parts.append(f"-- migration {migration.version}: {migration.name}")
        parts.append(migration.statements.strip())
        parts.append(
            "INSERT INTO migrations (version, name) "
            f"VALUES ({migration.version}, '{migration.name}');"
        )
    return "\n\n".join(parts) + "\n"


async def missing_script(connection: psycopg.AsyncConnection) -> str:
    """Return what `migrate` would run there, empty where nothing is missing.

    Raises:
        PreflightFailed: a later release made the schema.
    """
    version = await applied_version(connection)
    _require_known(version)
    return script(version, has_schema=await _has_schema(connection))


async def applied_version(connection: psycopg.AsyncConnection) -> int:
    """Return the last migration applied there, 0 when the schema does not exist."""
    cursor = await connection.execute("SELECT to_regclass('triggerkit.migrations') IS NOT NULL")
    row = await cursor.fetchone()
    if row is None or not row[0]:
        return 0
    cursor = await connection.execute("SELECT coalesce(max(version), 0) FROM triggerkit.migrations")
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


def version_problem(version: int, needs: int = 0) -> str | None:
    """Return what is wrong with a schema of this version, with the remedy; None for our own, and
    for a later one that needs no more than what is known here.

    Between two releases the schema is that of the later one, and processes of both work with it.
    """
    latest = migrations()[-1].version
    if version == latest or (version > latest and needs <= latest):
        return None
    if version > latest:
        return (
            f"the schema triggerkit is of version {version}, newer than the {latest} that this "
            "triggerkit knows; install the release that made it: pip install --upgrade triggerkit"
        )
    known = f"is of version {version}, and {latest} is needed" if version else "is missing"
    return f"the schema triggerkit {known}; run: triggerkit upgrade"


async def needed_version(connection: psycopg.AsyncConnection) -> int:
    """Return the migration that a process has to know to work with the schema there: what is later
    only adds to it."""
    query = "SELECT coalesce(max((to_jsonb(i) ->> 'needs')::int), 0) FROM triggerkit.installation i"
    row = await (await connection.execute(query)).fetchone()
    return int(row[0]) if row else 0


async def require_schema(connection: psycopg.AsyncConnection) -> None:
    """See that this release works with the schema there.

    Raises:
        PreflightFailed: it is missing, older, or too new; the message has the remedy.
    """
    version = await applied_version(connection)
    needs = await needed_version(connection) if version else 0
    if (problem := version_problem(version, needs)) is not None:
        raise PreflightFailed(problem)


async def schema_problem(dsn: str) -> str | None:
    """Return what is wrong with the version of the schema there, which a statement did not fit;
    None where that cannot be told."""
    with suppress(TriggerkitError, psycopg.Error):
        async with await connect(dsn, "triggerkit version") as state:
            version = await applied_version(state)
            return version_problem(version, needs=version)
    return None


def _require_known(version: int) -> None:
    latest = migrations()[-1].version
    if version > latest and (problem := version_problem(version, needs=version)) is not None:
        raise PreflightFailed(problem)


async def _has_schema(connection: psycopg.AsyncConnection) -> bool:
    row = await (await connection.execute(_HAS_SCHEMA)).fetchone()
    return row == (True,)


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
        _require_known(version)
        if missing:
            if not await _has_schema(connection):
                await connection.execute(_SCHEMA)
            await connection.execute(_BOOTSTRAP)
        for migration in missing:
            await _apply(connection, migration)
        return missing
    finally:
        await connection.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])


async def _apply(connection: psycopg.AsyncConnection, migration: Migration) -> None:
    """Apply a migration once it gets its locks; meanwhile those who work there go on."""
    is_told = False
    while True:
        try:
            async with connection.transaction():
                await connection.execute(_IN_ITS_SCHEMA)
                await connection.execute(migration.statements)
                await connection.execute(
                    "INSERT INTO triggerkit.migrations (version, name) VALUES (%s, %s)",
                    [migration.version, migration.name],
                )
        except LockNotAvailable:
            if not is_told:
                logger.warning(
                    "migration %d waits for a lock that another session holds, such as a backup; "
                    "trying again until it is let go",
                    migration.version,
                )
            is_told = True
            await asyncio.sleep(AGAIN_S)
        else:
            return
