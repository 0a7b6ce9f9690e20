"""Read from the catalog what the stream does not say of a relation: its primary key and types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import psycopg

from triggerkit.replication.compiled import CompiledRelation
from triggerkit.replication.messages import Relation
from triggerkit.state.connect import connect
from triggerkit.values import Decoder, array_decoder, decoder_for

#: The columns of the key alone: an index may hold others after them (INCLUDE).
_PRIMARY_KEY = """
SELECT a.attname FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, ord)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indisprimary AND i.indrelid = %s AND k.ord <= i.indnkeyatts ORDER BY k.ord
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


class Catalog:
    """Looks relations up over a connection of its own, opened when first needed."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.AsyncConnection | None = None

    async def compile(self, relation: Relation) -> CompiledRelation:
        """Return the relation with its primary key and the decoders of its types."""
        if self._connection is None:
            self._connection = await connect(self._dsn, "triggerkit catalog")
        cursor = await self._connection.execute(_PRIMARY_KEY, [relation.oid])
        primary_key = tuple(name for (name,) in await cursor.fetchall())
        types = (column.type_oid for column in relation.columns)
        decoders = await type_decoders(self._connection, types)
        return CompiledRelation(relation, primary_key, decoders)

    async def last_xid(self) -> int:
        """Return a recent 64-bit transaction id, to extend the stream's 32-bit ones by."""
        if self._connection is None:
            self._connection = await connect(self._dsn, "triggerkit catalog")
        cursor = await self._connection.execute(
            "SELECT txid_snapshot_xmax(txid_current_snapshot())"
        )
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()
