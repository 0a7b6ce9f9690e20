"""Read from the catalog what the stream does not say of a relation: its primary key and types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import psycopg

from triggerkit.replication.codec.compiled import CompiledRelation
from triggerkit.replication.codec.messages import Relation
from triggerkit.replication.codec.old_rows import Partitions
from triggerkit.replication.sighting import Sighting, sight_announced
from triggerkit.replication.slot.replication_slot import PUBLICATION
from triggerkit.replication.versions import (
    Column,
    InMemory,
    Present,
    Version,
    Versions,
    announced,
    full_xid,
    news_of,
)
from triggerkit.state.connect import connect
from triggerkit.values import Decoder, array_decoder, decoder_for

#: The columns of the key alone: an index may hold others after them (INCLUDE).
_PRESENT = """
SELECT c.oid::bigint, c.relkind = 'p',
    (SELECT jsonb_agg(jsonb_build_array(a.attnum, a.attname, a.atttypid::bigint) ORDER BY a.attnum)
     FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    (k.indkey::int2[])[0:k.indnkeyatts - 1]::int[], k.xmin::text::bigint,
    CASE WHEN c.relkind = 'p' THEN (
        SELECT coalesce(bool_and(l.relreplident = 'f'), false)
        FROM pg_partition_tree(c.oid) t JOIN pg_class l ON l.oid = t.relid
        WHERE t.isleaf AND l.relkind = 'r') ELSE false END,
    n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index k ON k.indrelid = c.oid AND k.indisprimary
WHERE c.oid = ANY (%s)
"""

#: Types, with those that they are made of: a domain's base, an array's element.
_TYPES = """
WITH RECURSIVE reached (oid) AS (
    SELECT unnest(%s::oid[])
    UNION
    SELECT CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END
    FROM reached r JOIN pg_type t ON t.oid = r.oid
    WHERE t.typtype = 'd' OR t.typoutput = 'pg_catalog.array_out'::regproc)
SELECT t.oid, t.typbasetype, CASE WHEN t.typoutput = 'pg_catalog.array_out'::regproc
    THEN t.typelem ELSE 0 END, t.typdelim
FROM reached r JOIN pg_type t ON t.oid = r.oid
"""

#: Types from this OID on are not built in.
FIRST_USER_OID = 16384


class _Type(NamedTuple):
    """A type's base if it is a domain, its element if it is an array, 0 otherwise."""

    base_oid: int
    element_oid: int
    delimiter: str


async def type_decoders(
    connection: psycopg.AsyncConnection, type_oids: Iterable[int]
) -> dict[int, Decoder]:
    """Return the decoders of those types that are not built in, and of those that they are made of.

    Domains are decoded as their base, arrays as lists of their element.
    """
    unknown = [oid for oid in type_oids if oid >= FIRST_USER_OID]
    if not unknown:
        return {}
    cursor = await connection.execute(_TYPES, [unknown])
    types = {oid: _Type(*facts) for oid, *facts in await cursor.fetchall()}

    def decoder(oid: int) -> Decoder:
        found = types.get(oid)
        if found is not None and found.base_oid:
            return decoder(found.base_oid)
        if found is not None and found.element_oid and oid >= FIRST_USER_OID:
            element = types[found.element_oid]
            return array_decoder(decoder(found.element_oid), element.delimiter)
        return decoder_for(oid)

    return {oid: decoder(oid) for oid in types if oid >= FIRST_USER_OID}


async def present_relations(
    connection: psycopg.AsyncConnection, oids: Sequence[int], xid: int | None = None
) -> dict[int, Present]:
    """Return the relations `oids` as the catalog has them now, without those that are gone.

    The transaction that made a key is extended to 64 bits by `xid`, which is near it.
    """
    cursor = await connection.execute(_PRESENT, [list(oids)])
    return {row[0]: _present(xid, *row) for row in await cursor.fetchall()}


def _present(
    xid: int | None,
    oid: int,
    is_partitioned: bool,
    columns: list[tuple[int, str, int]] | None,
    key: list[int] | None,
    key_xid: int | None,
    are_whole: bool,
    schema: str,
    table: str,
) -> Present:
    listed = tuple(Column(*column) for column in columns or ())
    version = Version(oid, listed, tuple(key or ()), is_partitioned, schema, table)
    made_by = None if key_xid is None or xid is None else full_xid(key_xid, xid)
    return Present(version, made_by, are_whole)


class Catalog:
    """Looks relations up over a connection of its own, opened when first needed.

    What it finds is kept in `versions`, for when the catalog has moved on.
    """

    def __init__(
        self, dsn: str, versions: Versions | None = None, publication: str = PUBLICATION
    ) -> None:
        self._dsn = dsn
        self._publication = publication
        self._versions = versions or InMemory()
        self._announced: set[int] = set()
        #: Relations announced with the key they had before one that is made later in the stream.
        self._until: dict[int, tuple[Relation, int]] = {}
        self._connection: psycopg.AsyncConnection | None = None

    async def compile(
        self, relation: Relation, xid: int | None = None, lsn: int = 0
    ) -> CompiledRelation:
        """Return the relation with its key and its decoders, as it was announced in transaction
        `xid`, whose commit is at `lsn`."""
        known = await self._versions.recall(relation.oid)
        present = (await present_relations(await self._connected(), [relation.oid], xid)).get(
            relation.oid
        )
        is_again = relation.oid in self._announced
        self._announced.add(relation.oid)
        found = announced(relation, known, present, xid, is_again=is_again)
        if found.version != known:
            news = [] if known is None else [*news_of(known, found.version, lsn)]
            await self._versions.remember(found.version, news)
        self._until.pop(relation.oid, None)
        if found.until is not None:
            self._until[relation.oid] = relation, found.until
        types = (column.type_oid for column in relation.columns)
        decoders = await type_decoders(await self._connected(), types)
        partitions = None
        if found.version.is_partitioned:
            partitions = Partitions(present is not None and present.are_whole)
        has_flags = any(column.is_key for column in relation.columns)
        lacks_key = bool(found.version.key) and not found.key_names and not has_flags
        return CompiledRelation(
            relation, found.key_names, decoders, partitions, lacks_key=lacks_key
        )

    async def changed(self, xid: int, lsn: int) -> list[CompiledRelation]:
        """Return the relations that have another key from transaction `xid` on, which is committed
        at `lsn`."""
        due = [relation for relation, until in self._until.values() if xid > until]
        return [await self.compile(relation, xid, lsn) for relation in due]

    async def sight(self, relation: CompiledRelation, xid: int) -> Sighting:
        """Return what is seen of `relation` now, which is announced in transaction `xid`."""
        return await sight_announced(await self._connected(), self._publication, relation, xid)

    async def last_xid(self) -> int:
        """Return a recent 64-bit transaction id, to extend the stream's 32-bit ones by."""
        connection = await self._connected()
        cursor = await connection.execute("SELECT txid_snapshot_xmax(txid_current_snapshot())")
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def _connected(self) -> psycopg.AsyncConnection:
        if self._connection is None:
            self._connection = await connect(self._dsn, "triggerkit catalog")
        return self._connection

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()
