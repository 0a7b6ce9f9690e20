"""The schema `triggerkit`: numbered migrations, forward only, each in a transaction of its own."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from itertools import count

import psycopg
from psycopg import sql
from psycopg.errors import DeadlockDetected, LockNotAvailable

from triggerkit.errors import PreflightFailed, TriggerkitError
from triggerkit.state.connect import connect

logger = logging.getLogger(__name__)

SCHEMA = "triggerkit"

#: Advisory lock held while migrating, so that two processes starting together do it once.
MIGRATION_LOCK = 0x74726B_01

#: A schema that is there already may belong to a role that can make none.
_SCHEMA = "CREATE SCHEMA IF NOT EXISTS triggerkit;"

#: Everybody who comes after a lock that is waited for waits, too: that is no more than a moment.
_IN_ITS_SCHEMA = "SET LOCAL search_path = triggerkit, pg_catalog; SET LOCAL lock_timeout = '500ms';"

#: A try that waits for longer than Postgres does before it looks who is in the way: an autovacuum
#: then gives way, which may else take an hour.
_PATIENTLY = """
SELECT set_config('lock_timeout', (500
    + 1000 * extract(epoch FROM current_setting('deadlock_timeout')::interval))::int::text, true)
"""

#: Of so many tries one is patient.
PATIENT_EVERY = 5

#: Seconds between two tries at a migration whose locks others have.
AGAIN_S = 2.0

_HAS_SCHEMA = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'triggerkit')"

#: Whether migrations are noted there, whether by us, and whether the schema has tables at all. The
#: table of markers is made apart from the migrations: see `replication/wal_marker.py`.
_FOUND = """
SELECT m.oid IS NOT NULL,
    (SELECT count(*) = 2 FROM pg_attribute a
        WHERE a.attrelid = m.oid AND NOT a.attisdropped AND (a.attname, a.atttypid)
            IN (('version', 'int'::regtype), ('name', 'text'::regtype))),
    EXISTS (SELECT FROM pg_class c
        WHERE c.relnamespace = to_regnamespace('triggerkit') AND c.relkind = ANY ('{r,p,v,m,f}')
            AND c.relname <> ALL ('{migrations,signal}'))
FROM (SELECT to_regclass('triggerkit.migrations') AS oid) m
"""

#: Whose the schema's tables are, where all are one's, who could make more; else the schema itself.
_OWNER = """
SELECT pg_get_userbyid(o.oid), pg_has_role(o.oid, %s), pg_has_role(o.oid, 'USAGE')
FROM pg_namespace n, LATERAL (
    SELECT coalesce((SELECT c.relowner FROM pg_class c
        WHERE c.oid = to_regclass('triggerkit.migrations')), n.nspowner) AS oid) o
WHERE n.nspname = 'triggerkit' AND has_schema_privilege(o.oid, n.oid, 'CREATE')
    AND NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relowner <> o.oid)
"""

#: From this version on a member of a role may be none who may act as it.
_SET_OPTION = 160000

_FOREIGN = (
    "the schema triggerkit of the state database is not of triggerkit: something else made its "
    "tables; rename it, or give the state a database of its own by TRIGGERKIT_STATE_URL"
)

#: What keeps a printed script from running beside an upgrade, or where it does not belong.
_GUARD = """\
DO $$ BEGIN
    PERFORM pg_advisory_xact_lock({lock});
    IF (SELECT coalesce(max(version), 0) FROM migrations) <> {above} THEN
        RAISE EXCEPTION
            'this upgrades the schema triggerkit from version {above}, and it has another'
            USING HINT = 'Print it anew: triggerkit upgrade --dry-run';
    END IF;
END $$;"""

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


def script(above: int = 0, *, has_schema: bool = False, owner: str | None = None) -> str:
    """Return the state schema as SQL, as `triggerkit sql` prints it: all of it, or what those lack
    who have the migrations up to `above`.

    All of it or nothing happens, also where psql goes on after an error, and whoever runs it: what
    it makes is of the role that has the rest.
    """
    missing = [migration for migration in migrations() if migration.version > above]
    if not missing:
        return ""
    parts = ["BEGIN;"]
    if owner is not None:
        parts.append(sql.SQL("SET LOCAL ROLE {};").format(sql.Identifier(owner)).as_string(None))
    if above == 0:
        parts += [_BOOTSTRAP.strip()] if has_schema else [_SCHEMA, _BOOTSTRAP.strip()]
    parts += [_IN_ITS_SCHEMA, _GUARD.format(lock=MIGRATION_LOCK, above=above)]
    for migration in missing:
        parts.append(f"-- migration {migration.version}: {migration.name}")
        parts.append(migration.statements.strip())
        parts.append(
            "INSERT INTO migrations (version, name) "
            f"VALUES ({migration.version}, '{migration.name}');"
        )
    return "\n\n".join([*parts, "COMMIT;"]) + "\n"


async def missing_script(connection: psycopg.AsyncConnection) -> str:
    """Return what `migrate` would run there, empty where nothing is missing.

    Raises:
        PreflightFailed: a later release made the schema, or something else.
    """
    version = await applied_version(connection)
    _require_known(version)
    owner, _, _ = await _owner(connection)
    return script(version, has_schema=await _has_schema(connection), owner=owner)


async def applied_version(connection: psycopg.AsyncConnection) -> int:
    """Return the last migration applied there, 0 when the schema does not exist.

    Raises:
        PreflightFailed: there is a schema of that name that something else made.
    """
    row = await (await connection.execute(_FOUND)).fetchone()
    assert row is not None
    is_noted, is_ours, has_tables = row
    version = 0
    if is_noted and is_ours:
        latest = "SELECT coalesce(max(version), 0) FROM triggerkit.migrations"
        [(version,)] = await (await connection.execute(latest)).fetchall()
    if (is_noted and not is_ours) or (has_tables and version == 0):
        raise PreflightFailed(_FOREIGN)
    return int(version)


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
            try:
                version = await applied_version(state)
            except PreflightFailed as error:
                return str(error)
            return version_problem(version, needs=version)
    return None


def _require_known(version: int) -> None:
    latest = migrations()[-1].version
    if version > latest and (problem := version_problem(version, needs=version)) is not None:
        raise PreflightFailed(problem)


async def _has_schema(connection: psycopg.AsyncConnection) -> bool:
    row = await (await connection.execute(_HAS_SCHEMA)).fetchone()
    return row == (True,)


async def _owner(connection: psycopg.AsyncConnection) -> tuple[str | None, bool, bool]:
    """Return the role that new tables are to be of, and whether we may act as it, and use what it
    has."""
    right = "SET" if connection.info.server_version >= _SET_OPTION else "MEMBER"
    row = await (await connection.execute(_OWNER, [right])).fetchone()
    return (None, False, False) if row is None else (str(row[0]), bool(row[1]), bool(row[2]))


async def migrate(connection: psycopg.AsyncConnection) -> list[Migration]:
    """Apply what is missing and return it.

    `connection` must be in autocommit mode and free; it is left so.

    Raises:
        PreflightFailed: a later release made the schema, or something else, or another role.
    """
    await _take_turn(connection)
    try:
        version = await applied_version(connection)
        missing = [m for m in migrations() if m.version > version]
        _require_known(version)
        if missing and not await _has_schema(connection):
            await connection.execute(_SCHEMA)
        owner, may_act, may_use = await _owner(connection)
        if missing and version and owner is not None and not (may_act or may_use):
            raise PreflightFailed(
                f"the schema triggerkit belongs to {owner}, not to {connection.info.user}; "
                f"run this as {owner}, or as a member of it"
            )
        for migration in missing:
            await _apply(connection, migration, owner if may_act else None)
        return missing
    finally:
        await connection.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])


async def _take_turn(connection: psycopg.AsyncConnection) -> None:
    tried = await connection.execute("SELECT pg_try_advisory_lock(%s)", [MIGRATION_LOCK])
    if await tried.fetchone() != (True,):
        logger.warning("another process upgrades the schema triggerkit; waiting for it")
        await connection.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])


async def _apply(
    connection: psycopg.AsyncConnection, migration: Migration, owner: str | None
) -> None:
    """Apply a migration once it gets its locks, as the owner of what is there; meanwhile those who
    work there go on."""
    for tries in count(1):
        try:
            async with connection.transaction():
                if owner is not None:
                    role = sql.Identifier(owner)
                    await connection.execute(sql.SQL("SET LOCAL ROLE {}").format(role))
                await connection.execute(_IN_ITS_SCHEMA)
                if tries % PATIENT_EVERY == 2:
                    await connection.execute(_PATIENTLY)
                if migration.version == 1:
                    await connection.execute(_BOOTSTRAP)
                await connection.execute(migration.statements)
                await connection.execute(
                    "INSERT INTO triggerkit.migrations (version, name) VALUES (%s, %s)",
                    [migration.version, migration.name],
                )
        except (LockNotAvailable, DeadlockDetected):
            if tries == 1:
                logger.warning(
                    "migration %d waits for a lock that another session holds, such as a backup; "
                    "trying again until it is let go",
                    migration.version,
                )
            await asyncio.sleep(AGAIN_S)
        else:
            return
