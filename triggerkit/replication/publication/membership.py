"""What is published at this moment under the names that are followed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import psycopg
from psycopg import sql

from triggerkit.configuration.table_name import table_text

#: The first version whose publications may hold schemas.
SCHEMAS_FROM = 150000

#: A membership is known by the catalog's row that says so: taken out and put back, it is another.
#: And what is published of it by who last changed that row, and the publication's own.
_MEMBERS = """
SELECT w.schema, w.name, c.oid::bigint, CASE
    WHEN NOT (p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate) THEN NULL
    WHEN p.puballtables THEN p.oid
    WHEN to_jsonb(r) ->> 'prqual' IS NOT NULL THEN NULL
    ELSE coalesce(r.oid, {of_schema}) END::bigint,
    p.xmin::text, r.xmin::text,
    CASE WHEN c.relkind = 'p' THEN ARRAY(
        SELECT t.relid::oid::bigint FROM pg_partition_tree(c.oid) t WHERE t.relid <> c.oid)
    ELSE '{{}}' END
FROM unnest(%(schemas)s::text[], %(names)s::text[]) w (schema, name)
LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND c.relkind IN ('r', 'p'))
    ON n.nspname = w.schema AND c.relname = w.name
LEFT JOIN pg_publication p ON p.pubname = %(publication)s
LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
"""

_OF_SCHEMA = """
(SELECT m.oid FROM pg_publication_namespace m WHERE m.pnpubid = p.oid AND m.pnnspid = n.oid)
"""

#: The end of the WAL, and where relations are by now.
WAL_END = "(pg_current_wal_insert_lsn() - '0/0')::bigint"
_PLACE = f"SELECT {WAL_END}"
_NAMES = """
SELECT c.oid::bigint, n.nspname, c.relname FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (%s)
"""

#: Partitions that were attached by another transaction than the one that made them. A table's row
#: type is made with it, and not touched when it is attached.
_ATTACHED = """
SELECT i.inhrelid::regclass::text, i.inhrelid::bigint, i.xmin::text FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_type t ON t.oid = c.reltype
WHERE i.inhrelid = ANY (%s) AND i.xmin <> t.xmin AND c.relkind = 'r'
"""

#: Whether a partition has rows from before it was attached.
_HAS_OLDER = "SELECT EXISTS (SELECT FROM ONLY {} WHERE age(xmin) > age(%s::xid))"


class Member(NamedTuple):
    """What is under a followed name: the relation, None if there is none; the publication's row
    that holds it whole, None if none does; its partitions; and the transactions that last changed
    the publication and its row for the relation."""

    relation_oid: int | None
    membership: int | None
    partitions: tuple[int, ...]
    changed_by: tuple[str | None, str | None]


async def read_members(
    source: psycopg.AsyncConnection, publication: str, names: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], Member]:
    """Return what `publication` holds under each of `names`."""
    listed = list(names)
    has_schemas = source.info.server_version >= SCHEMAS_FROM
    query = sql.SQL(_MEMBERS).format(of_schema=sql.SQL(_OF_SCHEMA if has_schemas else "NULL::oid"))
    parameters = {
        "schemas": [schema for schema, _ in listed],
        "names": [name for _, name in listed],
        "publication": publication,
    }
    cursor = await source.execute(query, parameters)
    return {
        (schema, name): Member(oid, membership, tuple(sorted(partitions)), tuple(changed_by))
        for schema, name, oid, membership, *changed_by, partitions in await cursor.fetchall()
    }


async def present_names(source: psycopg.AsyncConnection, oids: Sequence[int]) -> dict[int, str]:
    """Return the names that the relations `oids` have now; those that are gone have none."""
    cursor = await source.execute(_NAMES, [list(oids)])
    return {oid: table_text(*name) for oid, *name in await cursor.fetchall()}


async def last_change(source: psycopg.AsyncConnection, publication: str) -> str | None:
    """Return the transaction that last changed `publication` itself, as a `Member` has it."""
    cursor = await source.execute(
        "SELECT xmin::text FROM pg_publication WHERE pubname = %s", [publication]
    )
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


async def wal_end(source: psycopg.AsyncConnection) -> int:
    """Return the place in the WAL that is written next."""
    cursor = await source.execute(_PLACE)
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def brought_rows(source: psycopg.AsyncConnection, partitions: Sequence[int]) -> list[str]:
    """Return those of the new `partitions` that had rows before they were attached.

    One that cannot be looked into in a second counts as such.
    """
    cursor = await source.execute(_ATTACHED, [list(partitions)])
    found = []
    for name, _, attached_by in await cursor.fetchall():
        query = sql.SQL(_HAS_OLDER).format(sql.SQL(name))
        try:
            async with source.transaction():
                await source.execute("SET LOCAL statement_timeout = '1s'")
                cursor = await source.execute(query, [attached_by])
                row = await cursor.fetchone()
        except (psycopg.errors.QueryCanceled, psycopg.errors.InsufficientPrivilege):
            row = (True,)
        if row == (True,):
            found.append(str(name))
    return found
