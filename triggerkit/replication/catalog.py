"""What the stream does not say of a relation: its primary key and the base types of domains."""

from __future__ import annotations

import psycopg

from triggerkit.replication.pgoutput import Relation
from triggerkit.replication.relations import CompiledRelation
from triggerkit.state.connect import connect

_PRIMARY_KEY = """
SELECT a.attname FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, ord)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indisprimary AND i.indrelid = %s ORDER BY k.ord
"""

_DOMAINS = """
WITH RECURSIVE base (oid, typbasetype) AS (
    SELECT oid, typbasetype FROM pg_type WHERE typtype = 'd' AND oid = ANY (%s::oid[])
    UNION ALL
    SELECT b.oid, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.typbasetype
    WHERE t.typtype = 'd')
SELECT b.oid, b.typbasetype FROM base b JOIN pg_type t ON t.oid = b.typbasetype
WHERE t.typtype <> 'd'
"""

#: Types from this OID on are not built in.
FIRST_USER_OID = 16384


class Catalog:
    """Looks relations up over a connection of its own, opened when first needed."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.AsyncConnection | None = None

    async def compile(self, relation: Relation) -> CompiledRelation:
        """The relation with its primary key and its domains' base types."""
        if self._connection is None:
            self._connection = await connect(self._dsn, "triggerkit catalog")
        cursor = await self._connection.execute(_PRIMARY_KEY, [relation.oid])
        primary_key = tuple(name for (name,) in await cursor.fetchall())
        unknown = [c.type_oid for c in relation.columns if c.type_oid >= FIRST_USER_OID]
        overrides: dict[int, int] = {}
        if unknown:
            cursor = await self._connection.execute(_DOMAINS, [unknown])
            overrides = dict(await cursor.fetchall())
        return CompiledRelation(relation, primary_key, overrides)

    async def last_xid(self) -> int:
        """A recent 64-bit transaction id, to extend the stream's 32-bit ones by."""
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
