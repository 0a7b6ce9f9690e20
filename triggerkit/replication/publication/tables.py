"""Tables of the source as its catalog has them: whether they can be followed, and by what."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from psycopg import sql

from triggerkit.replication.slot.replication_slot import PUBLICATION
from triggerkit.state.reading import Reads, rows_of

#: The first version that publishes stored generated columns, and that refuses to update a published
#: table whose replica identity has one which is not published.
GENERATED_FROM = 180000

#: By its root, by one of its partitions, or since all tables are.
_PUBLISHED = """
SELECT EXISTS (
    SELECT FROM pg_publication_tables t WHERE t.pubname = %(publication)s AND (
        t.schemaname = %(schema)s AND t.tablename = %(table)s
        OR to_regclass(format('%%I.%%I', t.schemaname, t.tablename)) IN (
            SELECT i.inhrelid FROM pg_inherits i
            WHERE i.inhparent = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text)))))
"""

#: The tables asked for, with the partitions below them. A deferrable primary key identifies nothing
#: for the server, nor does the place of an index that was dropped; and where another index takes
#: the primary key's place, deletes do not carry the key that the existing rows are read by.
_RELATIONS = """
WITH RECURSIVE wanted AS (
    SELECT c.oid, n.nspname, c.relname FROM unnest(%s::text[], %s::text[]) w (schema, name)
    JOIN pg_namespace n ON n.nspname = w.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p')
), below (root, oid) AS (
    SELECT oid, oid FROM wanted
    UNION ALL
    SELECT b.root, i.inhrelid FROM below b
    JOIN pg_class c ON c.oid = b.oid AND c.relkind = 'p' JOIN pg_inherits i ON i.inhparent = b.oid
)
SELECT b.root::bigint, b.oid::bigint, n.nspname AS schema, c.relname AS name,
    c.relkind::text AS kind, c.relpersistence = 'p' AS is_logged,
    k.indexrelid IS NOT NULL AS has_key, c.relreplident::text AS identity,
    CASE c.relreplident WHEN 'f' THEN true WHEN 'd' THEN coalesce(k.indimmediate, false)
        WHEN 'i' THEN coalesce(
            (k.indkey::int2[])[0:k.indnkeyatts - 1] <@ (d.indkey::int2[])[0:d.indnkeyatts - 1],
            false)
        ELSE false END AS is_identified,
    ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid
        AND a.attgenerated <> '' AND a.attnum = ANY ((k.indkey::int2[])[0:k.indnkeyatts - 1]))
        AS generated_key,
    ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid
        AND a.attgenerated <> '' AND NOT a.attisdropped AND CASE c.relreplident
        WHEN 'f' THEN true
        WHEN 'd' THEN a.attnum = ANY ((k.indkey::int2[])[0:k.indnkeyatts - 1])
        WHEN 'i' THEN a.attnum = ANY ((d.indkey::int2[])[0:d.indnkeyatts - 1])
        ELSE false END) AS generated_identity,
    ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid
        AND a.attgenerated = 's' AND NOT a.attisdropped) AS stored,
    ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid
        AND a.attgenerated = 'v' AND NOT a.attisdropped) AS virtual,
    ARRAY(SELECT i.inhrelid::regclass::text FROM pg_inherits i
        WHERE i.inhparent = c.oid AND c.relkind = 'r' ORDER BY 1) AS children
FROM below b JOIN pg_class c ON c.oid = b.oid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index k ON k.indrelid = c.oid AND k.indisprimary
LEFT JOIN pg_index d ON d.indrelid = c.oid AND d.indisreplident
ORDER BY n.nspname, c.relname
"""

_GENERATED = """
SELECT to_jsonb(p) ->> 'pubgencols', puballtables FROM pg_publication p WHERE pubname = %s
"""

_IDENTITIES = {"d": "default", "f": "full", "i": "index", "n": "nothing"}


class Fault(NamedTuple):
    """A problem, and the SQL that mends it."""

    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class _Relation:
    """A table or partition, below the wanted table `root`."""

    root: int
    oid: int
    schema: str
    name: str
    kind: str
    is_logged: bool
    has_key: bool
    identity: str
    is_identified: bool
    generated_key: list[str]
    generated_identity: list[str]
    stored: list[str]
    virtual: list[str]
    children: list[str]

    @property
    def sql_name(self) -> str:
        """The name in SQL."""
        return sql.Identifier(self.schema, self.name).as_string(None)


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table of the source, maybe one of partitions. `identity` is the replica identity's kind.

    `fault` says why the table cannot be followed. `partial` names it, or its partitions, whose old
    values the WAL does not carry, and `set_full` is the SQL that mends this: None where Postgres
    would then refuse the table's updates and deletes. `stored_columns` are its generated columns
    that can be published. `children` inherit from it, and their rows are not the table's own.
    """

    name: tuple[str, str]
    oid: int
    is_partitioned: bool
    identity: str
    fault: Fault | None
    partial: tuple[str, ...]
    set_full: str | None
    stored_columns: tuple[str, ...] = ()
    virtual_columns: tuple[str, ...] = ()
    children: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Publishing:
    """The facts that decide about generated columns: the server, and the publication there is."""

    publication: str
    version: int
    #: Whether stored generated columns are published, or will be once `apply` was run.
    has_generated: bool

    @property
    def set_generated(self) -> str:
        """The SQL that has stored generated columns published."""
        name = sql.Identifier(self.publication).as_string(None)
        return f"ALTER PUBLICATION {name} SET (publish_generated_columns = stored);"


async def read_tables(
    connection: Reads,
    names: Iterable[tuple[str, str]],
    publication: str = PUBLICATION,
) -> dict[tuple[str, str], SourceTable]:
    """Return those of the tables `names` that there are, as `publication` is to have them."""
    listed = sorted(set(names))
    wanted = [[schema for schema, _ in listed], [name for _, name in listed]]
    relations, has_generated = await asyncio.gather(
        rows_of(connection, _RELATIONS, wanted, into=_Relation),
        publishes_generated(connection, publication),
    )
    publishing = _Publishing(publication, connection.info.server_version, has_generated)
    below: defaultdict[int, list[_Relation]] = defaultdict(list)
    for relation in relations:
        below[relation.root].append(relation)
    tables = (_table(root, found, publishing) for root, found in below.items())
    return {table.name: table for table in tables}


async def is_published(connection: Reads, publication: str, table: tuple[str, str]) -> bool:
    """Return whether `publication` has the changes of a table."""
    parameters = {"publication": publication, "schema": table[0], "table": table[1]}
    return await rows_of(connection, _PUBLISHED, parameters) == [(True,)]


async def publishes_generated(connection: Reads, publication: str) -> bool:
    """Return whether `publication` has stored generated columns, as it is or as `apply` makes
    it."""
    if connection.info.server_version < GENERATED_FROM:
        return False
    rows = await rows_of(connection, _GENERATED, [publication])
    if not rows or rows[0][0] == "s":
        return True
    # Only our own is changed; what others made is used as it is.
    return publication == PUBLICATION and not rows[0][1]


def _table(root: int, relations: list[_Relation], publishing: _Publishing) -> SourceTable:
    (own,) = (relation for relation in relations if relation.oid == root)
    others = [r for r in relations if r is not own and r.kind in "rp"]
    # Rows are in the partitions that have none below them, and theirs is the identity that counts.
    parts = [own] if own.kind == "r" else [r for r in others if r.kind == "r"]
    faults = (_fault(relation, own, publishing) for relation in (own, *others))
    return SourceTable(
        name=(own.schema, own.name),
        oid=own.oid,
        is_partitioned=own.kind == "p",
        identity=_IDENTITIES[own.identity],
        fault=next((fault for fault in faults if fault is not None), None),
        partial=tuple(f"{r.schema}.{r.name}" for r in parts if r.identity != "f"),
        set_full=_set_full([own, *others], publishing),
        stored_columns=tuple(own.stored),
        virtual_columns=tuple(own.virtual),
        children=tuple(own.children),
    )


def _set_full(relations: list[_Relation], publishing: _Publishing) -> str | None:
    """Return the SQL that gives all of a table's parts REPLICA IDENTITY FULL, if it may."""
    statements = [
        f"ALTER TABLE {relation.sql_name} REPLICA IDENTITY FULL;"
        for relation in relations
        if relation.identity != "f"
    ]
    if publishing.version >= GENERATED_FROM:
        if any(relation.virtual for relation in relations):
            return None
        if any(relation.stored for relation in relations) and not publishing.has_generated:
            statements.insert(0, publishing.set_generated)
    return " ".join(statements)


def _fault(relation: _Relation, root: _Relation, publishing: _Publishing) -> Fault | None:
    """Return why a table, or a partition below `root`, cannot be followed; None if it can."""
    fault = (
        _of_storage(relation)
        or _of_generated(relation, publishing)
        or _of_identity(relation, publishing)
    )
    if fault is None or relation is root:
        return fault
    return fault._replace(problem=f"has the partition {relation.name}, which {fault.problem}")


def _of_storage(relation: _Relation) -> Fault | None:
    table = f"ALTER TABLE {relation.sql_name}"
    if not relation.is_logged:
        return Fault("is unlogged, so that nobody can follow it", f"{table} SET LOGGED;")
    if not relation.has_key:
        return Fault(
            "has no primary key, so its changes cannot be kept in order",
            f"{table} ADD PRIMARY KEY (…);",
        )
    return None


def _of_generated(relation: _Relation, publishing: _Publishing) -> Fault | None:
    """Return why its generated columns keep a table from being followed, None if they do not."""
    table = f"ALTER TABLE {relation.sql_name}"
    if relation.generated_key and not publishing.has_generated:
        names = ", ".join(relation.generated_key)
        problem = f"has the generated column {names} in its primary key, which is not published"
        if publishing.version >= GENERATED_FROM:
            return Fault(problem, publishing.set_generated)
        columns = (sql.Identifier(name).as_string(None) for name in relation.generated_key)
        drops = ", ".join(f"ALTER COLUMN {column} DROP EXPRESSION" for column in columns)
        remedy = f"{table} {drops};  -- or use Postgres 18, which publishes such columns"
        return Fault(f"{problem} by this server", remedy)
    if publishing.version < GENERATED_FROM:
        return None
    names = ", ".join(relation.generated_identity)
    refused = "Postgres refuses updates and deletes of such a table once it is published"
    if relation.identity == "f" and relation.virtual:
        back = _other_identity(relation)
        return Fault(
            f"has REPLICA IDENTITY FULL with the virtual generated column {names}: {refused}", back
        )
    if relation.generated_identity and not publishing.has_generated:
        return Fault(
            f"has the generated column {names} in its REPLICA IDENTITY, not published: {refused}",
            publishing.set_generated,
        )
    return None


def _of_identity(relation: _Relation, publishing: _Publishing) -> Fault | None:
    if relation.is_identified:
        return None
    full = _set_full([relation], publishing) or _other_identity(relation)
    if relation.identity == "i":
        return Fault("has a REPLICA IDENTITY that lacks the primary key", full)
    if relation.identity == "d":
        return Fault("has a deferrable primary key, which is no replica identity", full)
    return Fault(
        "has REPLICA IDENTITY NOTHING: publishing it would break its own UPDATE and DELETE", full
    )


def _other_identity(relation: _Relation) -> str:
    return f"ALTER TABLE {relation.sql_name} REPLICA IDENTITY DEFAULT;"
