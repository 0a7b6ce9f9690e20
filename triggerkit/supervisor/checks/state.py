"""The schema `triggerkit`: where it is, whose it is, and whether it is up to date."""

from __future__ import annotations

from contextlib import AsyncExitStack

import psycopg

from triggerkit.configuration.addresses import shown_database
from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.consumers.source.database import find_database
from triggerkit.errors import CannotConnect, PreflightFailed
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.state.migrate import (
    SCHEMA,
    applied_version,
    migrations,
    needed_version,
    version_problem,
)
from triggerkit.state.pooler import pooler_problem
from triggerkit.supervisor.checks.check import Check, quoted
from triggerkit.supervisor.checks.session import check_session
from triggerkit.supervisor.checks.tables import check_columns

_SCHEMA = """
SELECT current_database(), current_user, has_database_privilege(current_database(), 'CREATE'),
    pg_get_userbyid(n.nspowner), pg_has_role(n.nspowner, 'USAGE')
FROM (SELECT) one LEFT JOIN pg_namespace n ON n.nspname = %s
"""

#: What has another owner than the schema, and is not ours to use: such as what somebody else's
#: upgrade made.
_OTHERS = """
SELECT format('ALTER %%s %%s OWNER TO %%I;', o.kind, o.name, pg_get_userbyid(n.nspowner)),
    pg_get_userbyid(o.owner)
FROM pg_namespace n, LATERAL (
    SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, c.oid::regclass::text, c.relowner
    FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind = ANY ('{r,p,v}')
    UNION ALL
    SELECT 'ROUTINE', p.oid::regprocedure::text, p.proowner FROM pg_proc p
    WHERE p.pronamespace = n.oid
) o (kind, name, owner)
WHERE n.nspname = %s AND NOT pg_has_role(o.owner, 'USAGE') ORDER BY o.name
"""

_DEFINITIONS = """
SELECT c.name, c.definition FROM triggerkit.consumers c WHERE c.database_id = %s ORDER BY c.name
"""


async def check_state(settings: Settings, source: psycopg.AsyncConnection) -> list[Check]:
    """Check whether the state can be kept there; over `source` where that is the same database."""
    if settings.state_dsn == settings.source_dsn:
        return await _state(source, source)
    name = "state database reachable"
    async with AsyncExitStack() as stack:
        try:
            state = await connect(settings.state_dsn, "triggerkit check")
        except CannotConnect as error:
            remedy = "start that server, or correct TRIGGERKIT_STATE_URL"
            return [Check(name, False, str(error), remedy)]
        await stack.enter_async_context(state)
        return [
            Check(name, True, shown_database(settings.state_dsn)),
            *await _pooler(state, settings),
            await check_session(state, "session of the state"),
            *await _state(state, source),
        ]


async def _pooler(state: psycopg.AsyncConnection, settings: Settings) -> list[Check]:
    problem = await pooler_problem(state, settings.state_dsn)
    return [] if problem is None else [Check("pooler of the state", False, *problem)]


async def _state(state: psycopg.AsyncConnection, source: psycopg.AsyncConnection) -> list[Check]:
    schema = await _schema(state)
    if not schema.ok:
        return [schema]
    return [schema, *await _columns(state, source)]


async def _columns(state: psycopg.AsyncConnection, source: psycopg.AsyncConnection) -> list[Check]:
    known = await find_database(source, state)
    if known is None:
        return []
    cursor = await state.execute(_DEFINITIONS, [known.id])
    definitions = [
        (name, ConsumerDefinition.from_json(values)) for name, values in await cursor.fetchall()
    ]
    return await check_columns(source, known.publication_name, definitions)


async def _schema(state: psycopg.AsyncConnection) -> Check:
    cursor = await state.execute(_SCHEMA, [SCHEMA])
    row = await cursor.fetchone()
    assert row is not None
    database, role, may_create, owner, is_owned = row
    name = "state schema"
    if owner is None and not may_create:
        remedy = f"GRANT CREATE ON DATABASE {quoted(database)} TO {quoted(role)};"
        return Check(name, False, f"missing, and {role} may not create it", remedy)
    if owner is not None and not is_owned:
        remedy = f"GRANT {quoted(owner)} TO {quoted(role)};  -- or connect as {owner}"
        return Check(name, False, f"{SCHEMA} belongs to {owner}, not to {role}", remedy)
    if (others := await _of_others(state, role)) is not None:
        return Check(name, False, *others)
    try:
        version, latest = await applied_version(state), migrations()[-1].version
    except PreflightFailed as error:
        remedy = f"ALTER SCHEMA {SCHEMA} RENAME TO …;  -- or set TRIGGERKIT_STATE_URL"
        return Check(name, False, str(error), remedy)
    detail, remedy = f"version {version} of {latest}", "triggerkit upgrade"
    is_known = version_problem(version, await needed_version(state) if version else 0) is None
    if version > latest and is_known:
        detail = f"version {version}, newer than the {latest} of this triggerkit, which works there"
    elif version > latest:
        detail = f"version {version}, newer than the {latest} that this triggerkit knows"
        remedy = "pip install --upgrade triggerkit"
    return Check(name, is_known, detail, remedy)


async def _of_others(state: psycopg.AsyncConnection, role: str) -> tuple[str, str] | None:
    """Return what in the schema the role may not use, and what gives it that."""
    found = await (await state.execute(_OTHERS, [SCHEMA])).fetchall()
    if not found:
        return None
    owners = ", ".join(sorted({owner for _, owner in found}))
    detail = f"{len(found)} of the tables and functions in it belong to {owners}, not to {role}"
    return detail, " ".join(statement for statement, _ in found)
