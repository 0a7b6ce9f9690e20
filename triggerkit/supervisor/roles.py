"""Write the SQL of roles with the least rights: one that captures, one that owns the state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import psycopg
from psycopg import sql

from triggerkit.consumers.declare.declaration import Declarations
from triggerkit.consumers.declare.topics import event_tables
from triggerkit.errors import ConfigurationError, PreflightFailed
from triggerkit.replication.publication.ensure import create_publication
from triggerkit.replication.publication.tables import SourceTable, read_tables
from triggerkit.replication.slot.replication_slot import identify
from triggerkit.replication.unknown_table import no_table
from triggerkit.state.migrate import SCHEMA
from triggerkit.supervisor.checks.check import literal, quoted
from triggerkit.supervisor.checks.provider import grant_replication, provider_of

#: Postgres cuts longer names, and would then not find them again.
MAX_NAME_BYTES = 63

#: The first version whose role that captures writes nothing of its own into the source.
WRITES_NOTHING = 140000

_HEAD = """\
-- Roles with the least rights, for the database {database}. Run it by `psql -1` as a superuser, or
-- as an owner of the tables who may create roles. Then set the passwords: \\password {capture}

"""

_ROLE = """\
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {name}) THEN
        CREATE ROLE {role} LOGIN;
    END IF;
"""

_PUBLICATION = """\
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = {name}) THEN
        {create};
    END IF;
"""

_SCHEMA = """\
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = {name}) THEN
        CREATE SCHEMA {schema} AUTHORIZATION {role};
    END IF;
"""

_MEMBERS = """
SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s
"""


async def capture_role(
    source: psycopg.AsyncConnection, role: str, declarations: Declarations, publication: str
) -> str:
    """Return the SQL of the role of `DATABASE_URL`: it replicates, and reads the tables that are
    declared. The publication is made, too, since only an owner of the tables may.

    Raises:
        ConfigurationError: nothing is declared, the role cannot have this name, or the server is
            too old for such a role.
        PreflightFailed: a declared table does not exist.
    """
    _require_name(role)
    if source.info.server_version < WRITES_NOTHING:
        raise ConfigurationError(
            "before Postgres 14 the role that captures owns the schema triggerkit, too: see "
            "docs/deploy.md for one role, or use a later server"
        )
    tables = await _tables(source, declarations, publication)
    identity, provider = await identify(source), await provider_of(source)
    lines = [
        _HEAD.format(database=_in_comment(identity.database), capture=role),
        _block(_ROLE.format(name=literal(role), role=quoted(role))),
        f"{grant_replication(provider, role)}\n",
        f"GRANT CONNECT ON DATABASE {quoted(identity.database)} TO {quoted(role)};\n",
        *_reading(tables, role),
        *await _publication(source, publication, tables),
    ]
    return "".join(lines)


def state_role(role: str, database: str) -> str:
    """Return the SQL of the role of `TRIGGERKIT_STATE_URL`: it owns the schema `triggerkit`, and
    may do nothing else.

    Raises:
        ConfigurationError: the role cannot have this name, or the URL names no database.
    """
    _require_name(role)
    if not database:
        raise ConfigurationError("TRIGGERKIT_STATE_URL, or DATABASE_URL, names no database")
    lines = [
        f"-- The state, in the database {_in_comment(database)}. Then: \\password {role}\n",
        _block(_ROLE.format(name=literal(role), role=quoted(role))),
        f"GRANT CONNECT ON DATABASE {quoted(database)} TO {quoted(role)};\n",
        _block(_SCHEMA.format(name=literal(SCHEMA), schema=quoted(SCHEMA), role=quoted(role))),
    ]
    return "".join(lines)


def _block(body: str) -> str:
    """Return PL/pgSQL that runs at once, quoted by what is not in it: names of tables are other
    people's, and a superuser runs this."""
    tag = "roles"
    while f"${tag}$" in body:
        tag += "_"
    return f"DO ${tag}$ BEGIN\n{body}END ${tag}$;\n"


def _in_comment(name: str) -> str:
    """Return a name that stays on its line."""
    return " ".join(name.splitlines())


def _require_name(role: str) -> None:
    is_short = 0 < len(role.encode()) <= MAX_NAME_BYTES
    if not (is_short and role.isprintable()) or role.startswith("pg_"):
        raise ConfigurationError(
            f"{role!r} is no name for a role: it has 1 to {MAX_NAME_BYTES} bytes, no control "
            "characters, and does not begin with pg_"
        )


async def _tables(
    source: psycopg.AsyncConnection, declarations: Declarations, publication: str
) -> list[SourceTable]:
    names = {(t.schema, t.name) for c in declarations.consumers for t in c.definition.table_names}
    if declarations.events is not None:
        of_events, _ = await event_tables(source, declarations.events, publication)
        names |= {table.name for table in of_events}
    if not names:
        raise ConfigurationError(
            "no table is followed yet: declare a consumer by on= or in triggerkit.toml"
        )
    found = await read_tables(source, names, publication)
    for name in sorted(names - found.keys()):
        raise PreflightFailed(await no_table(source, name))
    return [found[name] for name in sorted(names)]


def _reading(tables: Sequence[SourceTable], role: str) -> Iterator[str]:
    for schema in sorted({table.name[0] for table in tables}):
        yield f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {quoted(role)};\n"
    for table in tables:
        yield f"GRANT SELECT ON TABLE {quoted(*table.name)} TO {quoted(role)};\n"


async def _publication(
    source: psycopg.AsyncConnection, publication: str, tables: Sequence[SourceTable]
) -> list[str]:
    create = create_publication(publication, tables, source.info.server_version).as_string(None)
    lines = [_block(_PUBLICATION.format(name=literal(publication), create=create))]
    cursor = await source.execute(_MEMBERS, [publication])
    published = set(await cursor.fetchall())
    missing = [table for table in tables if table.name not in published] if published else []
    for table in missing:
        name = sql.Identifier(*table.name).as_string(None)
        only = "" if table.is_partitioned else "ONLY "
        lines.append(f"ALTER PUBLICATION {quoted(publication)} ADD TABLE {only}{name};\n")
    return lines
