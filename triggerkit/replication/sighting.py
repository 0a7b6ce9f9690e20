"""What is seen of a relation at one moment, by which it is known whether its past is still its own.

An update leaves large values out, and an earlier version of the row has them only if nothing was
done to the rows since that no message tells of: the table taken out of the publication, its rows
written anew into other files, a partition attached that had rows. The catalog shows that, but as it
is now: so a change counts from the moment at which it was seen, unless it is the work of the very
transaction that is being read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import psycopg
from psycopg import sql

from triggerkit.replication.codec.compiled import CompiledRelation
from triggerkit.replication.publication.columns import published_columns
from triggerkit.replication.publication.membership import SCHEMAS_FROM, WAL_END, wal_end

#: The end of the WAL is read after the catalog's snapshot was taken. A partition that was made in
#: its place is known by its row type, which is made with it and not touched when it is attached;
#: and a file that has its table's OID is the first. A transaction that changed columns as well may
#: have written rows anew.
_SEEN = """
SELECT c.oid::bigint, (
        SELECT concat_ws(' ', p.oid, p.xmin, {of_schema}, (
            SELECT string_agg(concat(r.oid, ' ', r.xmin), ' ' ORDER BY r.oid)
            FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = ANY (ARRAY(
                SELECT c.oid UNION SELECT relid FROM pg_partition_ancestors(c.oid)))))
        FROM pg_publication p WHERE p.pubname = %(publication)s),
    ARRAY(SELECT a.attnum::int FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
    ARRAY(SELECT a.attname::text FROM pg_index k
        CROSS JOIN LATERAL unnest((k.indkey::int2[])[0:k.indnkeyatts - 1])
            WITH ORDINALITY AS o (number, place)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = o.number
        WHERE k.indrelid = c.oid AND k.indisprimary ORDER BY o.place),
    (SELECT jsonb_agg(jsonb_build_array(l.oid::bigint, l.relfilenode::bigint,
            CASE WHEN EXISTS (SELECT FROM pg_attribute a
                WHERE a.attrelid = l.oid AND a.attnum > 0 AND a.xmin = l.xmin)
            THEN 0 ELSE l.xmin::text::bigint END,
            CASE WHEN i.xmin <> t.xmin THEN i.xmin::text::bigint ELSE 0 END,
            l.relfilenode = l.oid) ORDER BY l.oid)
        FROM (SELECT c.oid UNION SELECT relid FROM pg_partition_tree(c.oid)) tree (oid)
        JOIN pg_class l ON l.oid = tree.oid AND l.relkind = 'r'
        JOIN pg_type t ON t.oid = l.reltype
        LEFT JOIN pg_inherits i ON i.inhrelid = l.oid AND l.relispartition),
    EXISTS (SELECT FROM pg_class l CROSS JOIN LATERAL pg_options_to_table(l.reloptions) o
        WHERE o.option_name = 'toast_tuple_target' AND o.option_value::int < 2000
        AND (l.oid = c.oid OR l.oid IN (SELECT relid FROM pg_partition_tree(c.oid))))
    OR EXISTS (SELECT FROM pg_attribute a
        JOIN pg_type d ON d.oid = a.atttypid
        JOIN pg_type t ON t.oid = coalesce(nullif(d.typbasetype, 0), d.oid)
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        HAVING sum({lack}) > 200 OR bool_or({is_odd})),
    {wal_end}
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {which}
"""

#: How much more than its text a value of a fixed length may take with what aligns it: its name in
#: the record, quotes and at least a digit are text. Addresses take up to 19 bytes.
_LACK = """
greatest(0, CASE WHEN t.typlen > 0 THEN t.typlen
        WHEN t.typname IN ('inet', 'cidr') THEN 19 ELSE 0 END
    + CASE t.typalign WHEN 'd' THEN 7 WHEN 'i' THEN 3 WHEN 's' THEN 1 ELSE 0 END
    - octet_length(a.attname::text) - 4
    - CASE WHEN t.typname = 'uuid' THEN 38 WHEN t.typcategory = 'D' THEN 10
        WHEN t.typcategory = 'B' THEN 4 WHEN t.typcategory = 'N' THEN 1 ELSE 2 END)
"""

#: Types of which a long value may have a short text. Arrays, ranges, rows and JSON are known by
#: that: see `_may_be_large` in `log/entry.py`.
_IS_ODD = """
t.typlen = -1 AND t.typtype = 'b' AND t.typcategory <> 'A' AND (
    t.typname IN ('jsonpath', 'pg_snapshot', 'txid_snapshot')
    OR t.typnamespace <> 'pg_catalog'::regnamespace AND t.typname NOT IN ('citext', 'hstore',
        'vector', 'halfvec', 'sparsevec', 'geometry', 'geography'))
"""

_OF_SCHEMA = """
(SELECT m.oid FROM pg_publication_namespace m
 WHERE m.pnpubid = p.oid AND m.pnnspid = c.relnamespace)
"""

_BY_OID = "c.oid = %(oid)s"
_BY_NAME = "n.nspname = %(schema)s AND c.relname = %(table)s"


class File(NamedTuple):
    """Where rows of a relation are: a table or partition and its file.

    `made_by` is the transaction (32 bits) that last changed the table and none of its columns, 0
    if there is none. `attached_by` is that which attached a partition made before, 0 for others.
    """

    oid: int
    number: int
    made_by: int
    attached_by: int
    is_first: bool


class Facts(NamedTuple):
    """What the catalog says of a relation beside its columns' names and types."""

    #: The catalog's rows that say that and how it is published, each with its last change.
    publication: str
    numbers: tuple[int, ...]
    files: tuple[File, ...]
    #: Whether values of rows with a short text may be stored apart, which an update may then leave
    #: out, too: their entries are marked.
    has_short: bool = False


class Sighting(NamedTuple):
    """A relation as it was seen. `columns` are names and types' OIDs, as messages have them.

    The facts are of the catalog when the WAL ended at `lsn` or before it. `xid` (32 bits) is the
    transaction that was being read, None outside the stream.
    """

    oid: int
    name: tuple[str, str]
    columns: tuple[tuple[str, int], ...]
    key: tuple[str, ...]
    facts: Facts
    lsn: int
    xid: int | None = None


def has_same_rows(before: Facts, after: Sighting) -> Literal["as before", "now", "unknown"]:
    """Return whether rows were changed, between `before` and the sighting, without messages.

    "now" is in the transaction that is being read; "unknown" may be any time until the sighting.
    """
    if (before.publication, before.has_short) != (after.facts.publication, after.facts.has_short):
        return "unknown"
    known = {file.oid: file for file in before.files}
    moved = [file for file in after.facts.files if _is_moved(known.get(file.oid), file)]
    if any(file.made_by != after.xid for file in moved):
        return "unknown"
    of_now = any(file.made_by == after.xid for file in after.facts.files)
    return "now" if of_now or before.numbers != after.facts.numbers else "as before"


def _is_moved(before: File | None, after: File) -> bool:
    if before is None:
        return bool(after.attached_by) or not after.is_first
    return (before.number, before.attached_by) != (after.number, after.attached_by)


async def sight_announced(
    connection: psycopg.AsyncConnection, publication: str, relation: CompiledRelation, xid: int
) -> Sighting:
    """Return what is seen of `relation` when it is announced in transaction `xid`."""
    row = await _look(connection, publication, _BY_OID, oid=relation.oid)
    if row is None:
        # Dropped since: nobody can tell any more what was done to it before.
        facts, lsn = Facts("", (), ()), await wal_end(connection)
    else:
        facts, lsn = row.facts, row.lsn
    columns = tuple(zip(relation.columns, relation.types, strict=True))
    name = relation.schema, relation.table
    return Sighting(relation.oid, name, columns, relation.key_columns, facts, lsn, xid & 0xFFFFFFFF)


async def sight_table(
    connection: psycopg.AsyncConnection, publication: str, name: tuple[str, str]
) -> Sighting | None:
    """Return what is seen of the table `name`; None where there is none."""
    row = await _look(connection, publication, _BY_NAME, schema=name[0], table=name[1])
    if row is None:
        return None
    columns = (await published_columns(connection, publication, [name])).get(name, {})
    return Sighting(row.oid, name, tuple(columns.items()), row.key, row.facts, row.lsn)


class _Row(NamedTuple):
    oid: int
    key: tuple[str, ...]
    facts: Facts
    lsn: int


async def _look(
    connection: psycopg.AsyncConnection, publication: str, which: str, **values: object
) -> _Row | None:
    has_schemas = connection.info.server_version >= SCHEMAS_FROM
    query = sql.SQL(_SEEN).format(
        of_schema=sql.SQL(_OF_SCHEMA if has_schemas else "NULL"),
        wal_end=sql.SQL(WAL_END),
        lack=sql.SQL(_LACK),
        is_odd=sql.SQL(_IS_ODD),
        which=sql.SQL(which),
    )
    cursor = await connection.execute(query, {"publication": publication, **values})
    row = await cursor.fetchone()
    if row is None:
        return None
    oid, published, numbers, key, files, has_short, lsn = row
    facts = facts_of(published or "", numbers, files or (), has_short)
    return _Row(oid, tuple(key), facts, lsn)


def facts_of(
    publication: str,
    numbers: Sequence[int],
    files: Sequence[Sequence[int]],
    has_short: bool = False,
) -> Facts:
    """Return facts as they come out of JSON."""
    listed = tuple(File(*file) for file in files)  # type: ignore[arg-type]
    return Facts(publication, tuple(numbers), listed, has_short)
