"""Remembers in the state which version of each relation a database's stream told of last."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.gap import LostChanges, end_lost, note_lost
from triggerkit.replication.catalog import present_relations
from triggerkit.replication.versions import Column, News, Version

logger = logging.getLogger(__name__)

_RECALL = """
SELECT columns, key, is_partitioned, schema_name, table_name FROM triggerkit.relations
WHERE database_id = %s AND oid = %s
"""

_INSERT = """
INSERT INTO triggerkit.relations
    (database_id, oid, columns, key, is_partitioned, schema_name, table_name)
VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (database_id, oid)
"""

_REMEMBER = f"""{_INSERT} DO UPDATE
SET columns = excluded.columns, key = excluded.key, is_partitioned = excluded.is_partitioned,
    schema_name = excluded.schema_name, table_name = excluded.table_name
"""

#: What the stream told of is not replaced: it may be behind the catalog.
_NOTE = f"{_INSERT} DO NOTHING"

_COUNTS = """
SELECT p.schema_name, p.table_name, jsonb_array_length(r.columns)
FROM triggerkit.published p
JOIN triggerkit.relations r ON r.database_id = p.database_id AND r.oid = p.relation_oid
WHERE p.database_id = %s
"""

_UNKNOWN = """
SELECT o FROM unnest(%s::bigint[]) o
WHERE NOT EXISTS (SELECT FROM triggerkit.relations WHERE database_id = %s AND oid = o)
"""


class StoredVersions:
    """The remembered versions of one database's relations."""

    def __init__(self, pool: AsyncConnectionPool, database_id: int) -> None:
        self._pool = pool
        self._database_id = database_id

    async def recall(self, oid: int) -> Version | None:
        """Return the last version that was remembered."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_RECALL, [self._database_id, oid])
            row = await cursor.fetchone()
        if row is None:
            return None
        columns, key, *rest = row
        return Version(oid, tuple(Column(*c) for c in columns), tuple(key), *rest)

    async def remember(self, version: Version, news: Sequence[News] = ()) -> None:
        """Keep `version` in place of the one before, and what was lost by the change as gaps."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(_REMEMBER, _values(self._database_id, version))
            for one in news:
                await _mark(connection, self._database_id, one)


async def _mark(connection: psycopg.AsyncConnection, database_id: int, news: News) -> None:
    before, after = news.before, news.after
    name = (before.schema, before.table) if news.kind == "table" else (after.schema, after.table)
    lost = LostChanges(news.kind, *name, after.oid, news.lsn, news.lsn, news.cause)
    await note_lost(connection, database_id, lost)
    if news.kind == "table":
        # It may be the name that it had before: then what was lost in between ends here.
        await end_lost(connection, database_id, after.oid, (after.schema, after.table), news.lsn)
    logger.warning("%s.%s: %s", *name, news.cause)


async def note_present(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    database_id: int,
    oids: Iterable[int],
) -> None:
    """Remember the relations `oids` as they are now, unless the stream told of them."""
    cursor = await state.execute(_UNKNOWN, [list(oids), database_id])
    unknown = [oid for (oid,) in await cursor.fetchall()]
    if not unknown:
        return
    found = await present_relations(source, unknown)
    async with state.cursor() as cursor:
        await cursor.executemany(
            _NOTE, [_values(database_id, present.version) for present in found.values()]
        )


async def column_counts(
    state: psycopg.AsyncConnection, database_id: int
) -> dict[tuple[str, str], int]:
    """Return how many columns the whole rows of each table have, as the stream told of it last."""
    cursor = await state.execute(_COUNTS, [database_id])
    return {(schema, table): count for schema, table, count in await cursor.fetchall()}


def _values(database_id: int, version: Version) -> list[object]:
    columns = Jsonb([list(column) for column in version.columns])
    name = (version.schema, version.table)
    return [database_id, version.oid, columns, list(version.key), version.is_partitioned, *name]
