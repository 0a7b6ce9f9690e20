"""Makes the publication hold what is followed, if the application's own writes stay allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import psycopg
from psycopg import sql

from triggerkit.configuration.table_name import table_text
from triggerkit.errors import PreflightFailed
from triggerkit.replication import wal_marker
from triggerkit.replication.publication.membership import last_change
from triggerkit.replication.publication.refusal import ask
from triggerkit.replication.publication.tables import (
    GENERATED_FROM,
    SourceTable,
    read_tables,
)
from triggerkit.replication.slot.replication_slot import PUBLICATION
from triggerkit.replication.unknown_table import no_table

#: The first server version that publishes a partitioned table's changes under its own name.
PARTITIONS_BY_ROOT = 130000

_PUBLICATION = """
SELECT puballtables, coalesce((to_jsonb(p) ->> 'pubviaroot')::bool, false),
    to_jsonb(p) ->> 'pubgencols' = 's'
FROM pg_publication p WHERE pubname = %s
"""

#: Partitions below a published table whose own name is asked for, or is in the publication too.
_WITHIN = """
WITH held AS (
    SELECT r.prrelid AS oid FROM pg_publication_rel r
    JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = %(publication)s
), asked AS (SELECT unnest(%(oids)s::oid[]) AS oid)
SELECT n.nspname, c.relname, an.nspname, ac.relname, c.oid IN (SELECT oid FROM asked)
FROM (SELECT oid FROM held UNION SELECT oid FROM asked) t
JOIN pg_class c ON c.oid = t.oid AND c.relispartition
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL pg_partition_ancestors(c.oid) a
JOIN pg_class ac ON ac.oid = a.relid JOIN pg_namespace an ON an.oid = ac.relnamespace
JOIN pg_publication p ON p.pubname = %(publication)s
    AND (to_jsonb(p) ->> 'pubviaroot')::bool
WHERE a.relid <> c.oid AND (p.puballtables OR a.relid IN (SELECT oid FROM held))
    AND (c.oid IN (SELECT oid FROM asked) OR a.relid IN (SELECT oid FROM asked))
ORDER BY 1, 2, 3, 4 LIMIT 1
"""


class Published(NamedTuple):
    """The tables that are in the publication now, and what is to be said of it.

    `change` is what made it tell more of tables that it had, as `last_change` has it.
    """

    tables: list[SourceTable]
    said: list[str]
    change: str | None = None


def create_publication(
    publication: str, tables: Sequence[SourceTable], version: int
) -> sql.Composed:
    """Return the statement that makes `publication` hold `tables`, on a server of `version`."""
    create = sql.SQL("CREATE PUBLICATION {}").format(sql.Identifier(publication))
    if tables:
        names = _names(tables)
        create = sql.SQL("{} FOR TABLE {}").format(create, names)
    options = []
    if version >= PARTITIONS_BY_ROOT:
        # Changes of partitions come under the name of the table that a consumer follows.
        options.append(sql.SQL("publish_via_partition_root = true"))
    if version >= GENERATED_FROM:
        options.append(sql.SQL("publish_generated_columns = stored"))
    if options:
        create = sql.SQL("{} WITH ({})").format(create, sql.SQL(", ").join(options))
    return create


async def ensure_publication(
    connection: psycopg.AsyncConnection, publication: str, tables: Iterable[tuple[str, str]]
) -> Published:
    """Make `publication` hold `tables`; one that publishes all tables is used as it is.

    On a server that streams no messages it also gets the marker table. Where Postgres would refuse
    a table's own updates or deletes, the publication stays as it was.

    Raises:
        PreflightFailed: a table does not exist or cannot be followed, or the role may not do it.
    """
    wanted = await _require_tables(connection, publication, tables)
    await wal_marker.make_table(connection)
    async with connection.transaction():
        has_changed = await _ensure_tables(connection, publication, wanted)
        change = await last_change(connection, publication) if has_changed else None
        addition = await wal_marker.missing_publication(connection, publication)
        if addition is not None:
            await _change(connection, addition)
        await _require_own_name(connection, publication, wanted)
        said = await _require_writable(connection, publication, wanted)
    return Published(wanted, said, change)


async def _ensure_tables(
    connection: psycopg.AsyncConnection, publication: str, wanted: Sequence[SourceTable]
) -> bool:
    """Return whether options of the publication were changed."""
    cursor = await connection.execute(_PUBLICATION, [publication])
    row = await cursor.fetchone()
    if row is None:
        version = connection.info.server_version
        await _change(connection, create_publication(publication, wanted, version))
        return False
    all_tables, by_root, has_generated = row
    name = sql.Identifier(publication)
    if not by_root and any(table.is_partitioned for table in wanted):
        raise PreflightFailed(
            f"publication {publication} publishes partitions under their own names; run: "
            f"ALTER PUBLICATION {name.as_string(None)} SET (publish_via_partition_root = true);"
        )
    if all_tables:
        return False
    # False where the server knows the option; others have no such column.
    is_to_have = publication == PUBLICATION and any(table.stored_columns for table in wanted)
    is_changed = has_generated is False and is_to_have
    if is_changed:
        option = sql.SQL("ALTER PUBLICATION {} SET (publish_generated_columns = stored)")
        await _change(connection, option.format(name))
    cursor = await connection.execute(
        "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s", [publication]
    )
    published = set(await cursor.fetchall())
    missing = [table for table in wanted if table.name not in published]
    if missing:
        names = _names(missing)
        await _change(connection, sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(name, names))
    return is_changed


def _names(tables: Sequence[SourceTable]) -> sql.Composed:
    """Return `tables` as a publication takes them: without ONLY it would take their children."""
    return sql.SQL(", ").join(
        sql.SQL("{}{}").format(
            sql.SQL("" if table.is_partitioned else "ONLY "), sql.Identifier(*table.name)
        )
        for table in tables
    )


async def _change(connection: psycopg.AsyncConnection, statement: sql.Composed) -> None:
    try:
        async with connection.transaction():
            await connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        raise PreflightFailed(
            f"the role {connection.info.user} may not change the publication "
            f"({error.diag.message_primary}); let a superuser run: "
            f"{statement.as_string(connection)};"
        ) from error


async def _require_own_name(
    connection: psycopg.AsyncConnection, publication: str, wanted: Sequence[SourceTable]
) -> None:
    """Refuse a partition and the table that it belongs to beside each other: the changes of both
    come under the table's name."""
    cursor = await connection.execute(
        _WITHIN, {"publication": publication, "oids": [table.oid for table in wanted]}
    )
    row = await cursor.fetchone()
    if row is None:
        return
    *partition, schema, root, is_wanted = row
    dotted = table_text(*partition)
    told = f"table {dotted} is a partition, and its changes come under the name of {schema}.{root}"
    if is_wanted:
        raise PreflightFailed(f"{told}, which is published too; follow {schema}.{root} instead")
    drop = sql.SQL("ALTER PUBLICATION {} DROP TABLE {}").format(
        sql.Identifier(publication), sql.Identifier(*partition)
    )
    raise PreflightFailed(
        f"{told} once that is published; if nobody follows {dotted} any more, run: "
        f"{drop.as_string(None)};"
    )


async def _require_writable(
    connection: psycopg.AsyncConnection, publication: str, wanted: Sequence[SourceTable]
) -> list[str]:
    """Refuse a table that the application could not update or delete from any more."""
    said = []
    for table in wanted:
        verdict = await ask(connection, table)
        name = table_text(*table.name)
        if verdict.refusal is not None:
            drop = sql.SQL("ALTER PUBLICATION {} DROP TABLE {}").format(
                sql.Identifier(publication), sql.Identifier(*table.name)
            )
            raise PreflightFailed(
                f"table {name} cannot be published as it is, since Postgres would refuse its own "
                f"updates and deletes: {verdict.refusal}; mend its REPLICA IDENTITY, or, if it is "
                f"published with a column list or row filter, run: {drop.as_string(None)};"
            )
        if verdict.unasked is not None:
            said.append(
                f"whether Postgres allows updates and deletes of {name} once it is published was "
                f"looked up in the catalog alone: {verdict.unasked}"
            )
    return said


async def _require_tables(
    connection: psycopg.AsyncConnection, publication: str, names: Iterable[tuple[str, str]]
) -> list[SourceTable]:
    wanted = sorted(set(names))
    found = await read_tables(connection, wanted, publication)
    for name in wanted:
        table = found.get(name)
        dotted = table_text(*name)
        if table is None:
            raise PreflightFailed(await no_table(connection, name))
        if table.fault is not None:
            problem, remedy = table.fault
            raise PreflightFailed(f"table {dotted} {problem}; run: {remedy}")
        if table.is_partitioned and connection.info.server_version < PARTITIONS_BY_ROOT:
            raise PreflightFailed(
                f"table {dotted} is partitioned, and this server publishes only its "
                "partitions, under their own names; follow those, or use Postgres 13 or later"
            )
    return [found[name] for name in wanted]
