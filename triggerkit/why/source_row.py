"""What the source database has of a row, and whether its changes are captured now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import orjson
import psycopg
from psycopg import sql

from triggerkit.consumers.definition import TableName
from triggerkit.consumers.source.database import CaptureNames, Database
from triggerkit.errors import ConfigurationError
from triggerkit.replication.publication.tables import is_published
from triggerkit.replication.slot.slot_state import SlotState, read_slot
from triggerkit.replication.unknown_table import no_table
from triggerkit.state.faults import is_away
from triggerkit.state.reading import Together, rows_of

#: Milliseconds that a look into the source may take.
LOOK_MS = 300

_KEY = """
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
LEFT JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (number, place) ON true
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')
  AND (k.place IS NULL OR k.place <= i.indnkeyatts)
ORDER BY k.place
"""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row in the source. `key` is JSON as the log has it. `xmin` is the transaction that wrote
    the row last, None without a row; `is_readable` says whether it could be looked for."""

    key: str
    is_readable: bool = False
    xmin: int | None = None
    slot: SlotState | None = None
    is_published: bool = True

    @property
    def values(self) -> list[str]:
        """Return the values of the key."""
        return list(map(str, orjson.loads(self.key)))


def unread(values: Sequence[str]) -> SourceRow:
    """Return a row of a source that does not answer."""
    return SourceRow(orjson.dumps(list(values)).decode())


async def look_at_row(
    source: psycopg.AsyncConnection,
    names: CaptureNames,
    database: Database,
    table: TableName,
    values: Sequence[str],
) -> SourceRow:
    """Look up a row by the values of its key, as a person writes them.

    Raises:
        ConfigurationError: there is no such table, or the values do not fit its key.
    """
    async with names.slots(source) as slots, Together(source) as reads:
        named, slot, published = await asyncio.gather(
            rows_of(reads, _KEY, table),
            read_slot(reads if slots is source else slots, database.slot_name),
            is_published(reads, database.publication_name, (table.schema, table.name)),
        )
    if not named:
        raise ConfigurationError(await no_table(source, table))
    columns = [(name, type_) for name, type_ in named if name is not None]
    found = SourceRow(orjson.dumps(list(values)).decode(), slot=slot, is_published=published)
    return await _read(source, table, columns, values, found) if columns else found


async def _read(
    source: psycopg.AsyncConnection,
    table: TableName,
    columns: Sequence[tuple[str, str]],
    values: Sequence[str],
    found: SourceRow,
) -> SourceRow:
    """Return what is found with the row that has these values, as Postgres prints them."""
    if len(columns) != len(values):
        names = ", ".join(name for name, _ in columns)
        raise ConfigurationError(
            f"the key of {table} is ({names}): give {len(columns)} "
            f"{'value' if len(columns) == 1 else 'values'}, not {len(values)}"
        )
    typed = [
        sql.SQL("CAST({} AS {})").format(sql.Literal(value), sql.SQL(type_))
        for (_, type_), value in zip(columns, values, strict=True)
    ]
    named = [sql.Identifier(name) for name, _ in columns]
    conditions = [
        sql.SQL("{} = {}").format(name, value) for name, value in zip(named, typed, strict=True)
    ]
    # Equal is more than the same: 1.1 is 1.10, and the log has it as the row does.
    query = sql.SQL(
        "SELECT {}, r.* FROM (SELECT) given LEFT JOIN "
        "(SELECT xmin::text::bigint, {} FROM {} WHERE {}) r ON true"
    ).format(
        _printed(typed),
        _printed(named),
        sql.Identifier(*table),
        sql.SQL(" AND ").join(conditions),
    )
    try:
        async with source.transaction():
            await source.execute(f"SET LOCAL statement_timeout = {LOOK_MS}")
            [row] = await (await source.execute(query)).fetchall()
    except psycopg.Error:
        # Without the right to read it, or a type whose operators are elsewhere.
        texts = await _canonical(source, table, columns, typed)
        return replace(found, key=orjson.dumps(texts).decode())
    given, xmin, key = row[: len(columns)], row[len(columns)], row[len(columns) + 1 :]
    texts = list(given if xmin is None else key)
    return replace(found, key=orjson.dumps(texts).decode(), is_readable=True, xmin=xmin)


async def _canonical(
    source: psycopg.AsyncConnection,
    table: TableName,
    columns: Sequence[tuple[str, str]],
    typed: Sequence[sql.Composed],
) -> list[str]:
    """Return the values of a key as Postgres prints them."""
    try:
        row = await (await source.execute(sql.SQL("SELECT {}").format(_printed(typed)))).fetchone()
    except psycopg.Error as error:
        if is_away(error):
            raise
        types = ", ".join(f"{name} {type_}" for name, type_ in columns)
        raise ConfigurationError(
            f"the key of {table} is ({types}), and what was given is no such value"
        ) from None
    assert row is not None
    return list(row)


def _printed(values: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("format('%s', {})").format(value) for value in values)
