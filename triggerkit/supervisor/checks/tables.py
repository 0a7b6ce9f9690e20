"""The tables that consumers follow: there, told apart by a key, readable; and their columns."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.declare.followed import apart_groups, gone, read_followed, retyped
from triggerkit.consumers.definition import ConsumerDefinition, TableName
from triggerkit.replication.publication.columns import published_columns
from triggerkit.replication.publication.tables import SourceTable, read_tables
from triggerkit.replication.unknown_table import missing_table
from triggerkit.state.reading import Reads, rows_of
from triggerkit.supervisor.checks.check import Check, quoted

#: `row_security_active` also tells whether policies hide rows from this very role.
_PRIVILEGES = """
SELECT n.nspname, c.relname, current_user, has_schema_privilege(n.oid, 'USAGE'),
    has_table_privilege(c.oid, 'SELECT'), row_security_active(c.oid)
FROM unnest(%s::text[], %s::text[]) w (schema, name)
JOIN pg_namespace n ON n.nspname = w.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p')
"""

#: Of what old rows bring, by the replica identity's kind.
_OLD_VALUES = {
    "full": "changes and deletes carry all old values",
    "default": "deletes carry only the key",
    "index": "deletes carry only the index's columns",
}


async def check_tables(
    source: Reads, declared: Sequence[Declared], publication: str
) -> tuple[list[Check], list[SourceTable]]:
    """Return the checks of each followed table, and those tables that exist."""
    followers: defaultdict[TableName, list[Declared]] = defaultdict(list)
    for consumer in declared:
        for name in consumer.definition.table_names:
            followers[name].append(consumer)
    found, privileges = await asyncio.gather(
        read_tables(source, followers, publication), _privileges(source, followers)
    )
    absent = [name for name in followers if name not in found]
    missing = await asyncio.gather(*(missing_table(source, name) for name in absent))
    meanings = dict(zip(absent, missing, strict=True))
    checks: list[Check] = []
    for name in sorted(followers):
        table = found.get(name)
        if table is None:
            problem, meant = meanings[name]
            remedy = f"CREATE TABLE {quoted(*name)} (…);  -- or correct the name in on="
            if meant is not None:
                remedy = f"correct the name in on=: did you mean {meant}?"
            checks.append(Check(f"table {name}", False, problem, remedy))
            continue
        checks += _identity(name, table, followers[name])
        checks.append(privileges[name])
    return checks, [found[name] for name in sorted(found)]


def _identity(
    name: TableName, table: SourceTable, followers: Sequence[Declared]
) -> Iterator[Check]:
    label = f"table {name}"
    if table.fault is not None:
        yield Check(label, False, *table.fault)
        return
    yield Check(label, True, _old_rows(table))
    if table.children:
        yield Check(
            f"{label} children",
            False,
            f"rows of {_some(table.children)}, which inherit from it, are not its own: neither "
            "their changes nor existing ones are messages of it",
            "follow them beside it, by their own names",
            required=False,
        )
    choosy = [d.name for d in followers if d.definition.when_changed is not None]
    if choosy and table.partial:
        yield Check(
            f"{label} old values",
            False,
            f"when_changed of {', '.join(choosy)} lets every update pass, for want of them",
            table.set_full or _no_full(table),
            required=False,
        )


def _old_rows(table: SourceTable) -> str:
    if not table.is_partitioned:
        return f"replica identity {table.identity}: {_OLD_VALUES[table.identity]}"
    carried = "all partitions are REPLICA IDENTITY FULL: changes and deletes carry all old values"
    if table.partial:
        carried = f"REPLICA IDENTITY is each partition's own: deletes in {_some(table.partial)} "
        carried += "carry only the key"
    return f"{carried}; TRUNCATE, ATTACH and DETACH of a single partition send no changes"


def _no_full(table: SourceTable) -> str:
    names = ", ".join(table.virtual_columns)
    return (
        "leave when_changed out: with REPLICA IDENTITY FULL Postgres would refuse updates and "
        f"deletes, because of the virtual generated column {names}"
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


async def _privileges(
    source: Reads, names: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Check]:
    wanted = [[schema for schema, _ in names], [name for _, name in names]]
    return {
        (schema, name): _privilege(TableName(schema, name), *facts)
        for schema, name, *facts in await rows_of(source, _PRIVILEGES, wanted)
    }


def _privilege(
    name: TableName, role: str, may_use: bool, may_select: bool, has_row_security: bool
) -> Check:
    to = quoted(role)
    grants = []
    if not may_use:
        grants.append(f"GRANT USAGE ON SCHEMA {quoted(name.schema)} TO {to};")
    if not may_select:
        grants.append(f"GRANT SELECT ON {quoted(*name)} TO {to};")
    label = f"table {name} privileges"
    if grants:
        return Check(label, False, f"{role} may not read it", " ".join(grants))
    if has_row_security:
        detail = f"row security hides rows from {role}"
        return Check(label, False, detail, f"ALTER ROLE {to} BYPASSRLS;")
    return Check(label, True, f"readable by {role}")


async def check_columns(
    source: Reads,
    publication: str,
    definitions: Sequence[tuple[str, ConsumerDefinition]],
) -> list[Check]:
    """Return what became of columns that consumers name; nothing where all are as they were."""
    # Each table is read once, however many consumers follow it.
    tables = {table for _, definition in definitions for table in definition.table_names}
    compared = {t for _, d in definitions if d.filters or d.group_by for t in d.table_names}
    published, followed = await asyncio.gather(
        published_columns(source, publication, tables), read_followed(source, compared)
    )
    checks = []
    for name, definition in definitions:
        remedy = "triggerkit apply  # or set the consumer's filters again through the API"
        if found := retyped(followed, definition):
            label = f"filters of {name}"
            checks.append(Check(label, False, "; ".join(found), remedy, required=False))
        if found := [*gone(published, definition), *apart_groups(followed, definition)]:
            remedy = "correct the consumer's options, then run: triggerkit apply"
            label = f"columns of {name}"
            checks.append(Check(label, False, "; ".join(found), remedy, required=False))
    return checks
