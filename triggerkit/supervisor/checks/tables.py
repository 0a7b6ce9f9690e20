"""The tables that consumers follow: there, told apart by a key, and readable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import psycopg

from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import TableName
from triggerkit.replication.slot import SourceTable, read_table
from triggerkit.supervisor.checks.check import Check, quoted

#: `row_security_active` also tells whether policies hide rows from this very role.
_PRIVILEGES = """
SELECT current_user, has_schema_privilege(n.oid, 'USAGE'),
    has_table_privilege(c.oid, 'SELECT'), row_security_active(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""

#: Of what old rows bring, by the replica identity's kind.
_OLD_VALUES = {
    "full": "changes and deletes carry all old values",
    "default": "deletes carry only the key",
    "index": "deletes carry only the index's columns",
}


def followed_tables(declared: Sequence[Declared]) -> list[TableName]:
    """Return each table that a consumer follows, once."""
    return sorted({table for d in declared for table in d.definition.table_names})


async def check_tables(
    source: psycopg.AsyncConnection, declared: Sequence[Declared]
) -> tuple[list[Check], list[SourceTable]]:
    """Return the checks of each table, and those tables that exist."""
    checks: list[Check] = []
    found: list[SourceTable] = []
    for name in followed_tables(declared):
        table = await read_table(source, *name)
        if table is None:
            remedy = f"CREATE TABLE {quoted(*name)} (…);  -- or correct the name in on="
            checks.append(Check(f"table {name}", False, "missing", remedy))
            continue
        found.append(table)
        checks += _identity(name, table, declared)
        checks.append(await _privileges(source, name))
    return checks, found


def _identity(name: TableName, table: SourceTable, declared: Sequence[Declared]) -> Iterator[Check]:
    label = f"table {name}"
    fault = table.fault()
    if fault is not None:
        yield Check(label, False, fault.problem, fault.remedy)
        return
    detail = f"replica identity {table.identity}: {_OLD_VALUES[table.identity]}"
    yield Check(label, True, detail)
    choosy = [
        d.name
        for d in declared
        if name in d.definition.table_names and d.definition.when_changed is not None
    ]
    if choosy and table.identity != "full":
        yield Check(
            f"{label} old values",
            False,
            f"when_changed of {', '.join(choosy)} lets every update pass, for want of them",
            f"ALTER TABLE {quoted(*name)} REPLICA IDENTITY FULL;",
            required=False,
        )


async def _privileges(source: psycopg.AsyncConnection, name: TableName) -> Check:
    cursor = await source.execute(_PRIVILEGES, name)
    row = await cursor.fetchone()
    assert row is not None
    role, usage, select, row_security = row
    to = quoted(role)
    grants = []
    if not usage:
        grants.append(f"GRANT USAGE ON SCHEMA {quoted(name.schema)} TO {to};")
    if not select:
        grants.append(f"GRANT SELECT ON {quoted(*name)} TO {to};")
    label = f"table {name} privileges"
    if grants:
        return Check(label, False, f"{role} may not read it", " ".join(grants))
    if row_security:
        detail = f"row security hides rows from {role}"
        return Check(label, False, detail, f"ALTER ROLE {to} BYPASSRLS;")
    return Check(label, True, f"readable by {role}")
