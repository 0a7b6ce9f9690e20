"""The publication: what it holds of the tables that consumers follow, and how much of each."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from triggerkit.configuration.table_name import table_text
from triggerkit.replication.publication.ensure import create_publication
from triggerkit.replication.publication.tables import SourceTable
from triggerkit.state.reading import Reads, Row, rows_of
from triggerkit.supervisor.checks.check import Check, literal, quoted

#: Every action there is; changes of one that is left out would never be seen.
ACTIONS = "insert, update, delete, truncate"

_MAY = """
SELECT current_database(), current_user, has_database_privilege(current_database(), 'CREATE')
"""

_FOREIGN = """
SELECT oid::bigint FROM pg_class WHERE oid = ANY (%s) AND NOT pg_has_role(relowner, 'USAGE')
"""

#: By way of JSON, since which columns there are depends on the server's version.
_PUBLICATION = """
SELECT pubname::text AS name, puballtables AS all_tables,
    coalesce((to_jsonb(p) ->> 'pubviaroot')::bool, false) AS by_root,
    pubinsert AND pubupdate AND pubdelete AND pubtruncate AS all_actions
FROM pg_publication p WHERE pubname = %s
"""

_PUBLISHED = "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s"

_LIMITS = """
SELECT n.nspname, c.relname, to_jsonb(r) ->> 'prqual' IS NOT NULL,
    to_jsonb(r) ->> 'prattrs' IS NOT NULL
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = %s ORDER BY 1, 2
"""

#: Published tables whose updates and deletes the server refuses: for want of an identity, or, from
#: Postgres 18 on, as it has generated columns that are not published. And whether a key would do.
_HURT = """
SELECT n.nspname, c.relname, k.indexrelid IS NOT NULL AND c.relreplident = 'f'
FROM pg_publication_tables t JOIN pg_publication p ON p.pubname = t.pubname
JOIN pg_namespace n ON n.nspname = t.schemaname
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
LEFT JOIN pg_index k ON k.indrelid = c.oid AND k.indisprimary AND k.indimmediate
WHERE t.pubname = %(publication)s AND c.relkind = 'r' AND (
    c.relreplident = 'n' OR c.relreplident = 'd' AND k.indexrelid IS NULL
    OR c.relreplident = 'f' AND to_jsonb(p) ? 'pubgencols' AND EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped AND (
            a.attgenerated = 'v'
            OR a.attgenerated = 's' AND to_jsonb(p) ->> 'pubgencols' <> 's')))
ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class _Publication:
    name: str
    all_tables: bool
    by_root: bool
    all_actions: bool


async def check_publication(
    source: Reads, name: str, tables: Sequence[SourceTable], *, advise: bool
) -> list[Check]:
    """Check whether the publication `name` has all of `tables`, or will be made so."""
    found, published, limits, others = await asyncio.gather(
        rows_of(source, _PUBLICATION, [name], into=_Publication),
        rows_of(source, _PUBLISHED, [name]),
        _limits(source, name, tables),
        _others(source, name, tables, advise=advise),
    )
    if not found:
        return [await _to_be_made(source, name, tables)]
    [publication] = found
    return [
        _holds(publication, set(published), tables),
        _actions(publication),
        *_partitions(publication, tables),
        *limits,
        *others,
    ]


async def _to_be_made(source: Reads, name: str, tables: Sequence[SourceTable]) -> Check:
    [may], owned = await asyncio.gather(
        rows_of(source, _MAY), rows_of(source, _FOREIGN, [[table.oid for table in tables]])
    )
    database, role, may_create = may
    oids = {oid for (oid,) in owned}
    foreign = [table for table in tables if table.oid in oids]
    if foreign:
        statement = create_publication(name, tables, source.info.server_version)
        return Check(
            "publication",
            False,
            f"{name} is missing, and {role} does not own {_listed(foreign)}",
            f"{statement.as_string(None)};  -- as their owner, or a superuser",
        )
    if not may_create:
        return Check(
            "publication",
            False,
            f"{name} is missing, and {role} may not create it",
            f"GRANT CREATE ON DATABASE {quoted(database)} TO {quoted(role)};",
        )
    held = f" for {_listed(tables)}" if tables else ""
    return Check("publication", True, f"{name} will be made{held} by `triggerkit apply`")


def _holds(
    publication: _Publication, published: Collection[Row], tables: Sequence[SourceTable]
) -> Check:
    if publication.all_tables:
        return Check("publication", True, f"{publication.name} has all tables")
    if not tables:
        return Check("publication", True, f"{publication.name} is there")
    # By its partitions only, a partitioned table is in the publication too.
    missing = [
        t
        for t in tables
        if t.name not in published and not (t.is_partitioned and not publication.by_root)
    ]
    if not missing:
        return Check("publication", True, f"{publication.name} has all tables that tasks follow")
    names = ", ".join(quoted(*table.name) for table in missing)
    return Check(
        "publication",
        False,
        f"{publication.name} lacks {_listed(missing)}",
        f"ALTER PUBLICATION {quoted(publication.name)} ADD TABLE {names};",
    )


def _actions(publication: _Publication) -> Check:
    detail = ACTIONS if publication.all_actions else "some are left out, and would never be seen"
    remedy = f"ALTER PUBLICATION {quoted(publication.name)} SET (publish = {literal(ACTIONS)});"
    return Check("published actions", publication.all_actions, detail, remedy)


def _partitions(publication: _Publication, tables: Sequence[SourceTable]) -> Iterator[Check]:
    partitioned = [table for table in tables if table.is_partitioned]
    if partitioned and not publication.by_root:
        yield Check(
            "published partitions",
            False,
            f"changes of {_listed(partitioned)} come under the partitions' names",
            f"ALTER PUBLICATION {quoted(publication.name)} "
            "SET (publish_via_partition_root = true);",
        )


async def _limits(source: Reads, name: str, tables: Sequence[SourceTable]) -> list[Check]:
    """Row filters hide changes, which is wrong; column lists may hide what no task shall see."""
    followed = {table.name for table in tables}
    checks = []
    for schema, table_name, filtered, listed in await rows_of(source, _LIMITS, [name]):
        if (schema, table_name) not in followed or not (filtered or listed):
            continue
        table, publication = quoted(schema, table_name), quoted(name)
        # In one transaction: no change falls between the two.
        remedy = (
            f"BEGIN; ALTER PUBLICATION {publication} DROP TABLE {table}; "
            f"ALTER PUBLICATION {publication} ADD TABLE {table}; COMMIT;"
        )
        what = "a row filter: changes of other rows run nothing"
        if not filtered:
            what = "a column list: the other columns are missing in messages"
        label = f"published part of {table_text(schema, table_name)}"
        checks.append(Check(label, False, what, remedy, required=filtered))
    return checks


async def _others(
    source: Reads, name: str, tables: Sequence[SourceTable], *, advise: bool
) -> list[Check]:
    """Tables that nobody follows but the publication hurts: advice, and theirs to mend."""
    if not advise:
        return []
    followed = {table.name for table in tables}
    found = await rows_of(source, _HURT, {"publication": name})
    hurt = [row for row in found if row[:2] not in followed]
    if not hurt:
        return []
    detail = (
        "Postgres refuses updates and deletes of tables published without a replica identity, or "
        "with a generated column in it that is not published"
    )
    remedy = " ".join(
        f"ALTER TABLE {quoted(*table)} REPLICA IDENTITY {'DEFAULT' if has_key else 'FULL'};"
        for *table, has_key in hurt
    )
    return [Check("other published tables", False, detail, remedy, required=False)]


def _listed(tables: Sequence[SourceTable]) -> str:
    return ", ".join(table_text(*table.name) for table in tables)
