"""Read the log by table: what is of some tables, in the order of its positions."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

import psycopg

from triggerkit.log.entry import Entry
from triggerkit.log.reader import READ_BYTES, STORED, entry_of_row

#: Positions that are looked through first; then more at once, as long as nothing is found.
FIRST_POSITIONS = 20_000
MOST_POSITIONS = 400_000

#: Seconds after which a read without a result ends, and says how far it came.
READ_S = 1.0

_READ = f"""
SELECT {STORED} FROM (
    SELECT *, sum(coalesce(octet_length(record), 0) + coalesce(octet_length(changes), 0))
        OVER (ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM (
        SELECT e.* FROM unnest(%(partitions)s::smallint[], %(schemas)s::text[], %(tables)s::text[],
                %(firsts)s::bigint[]) AS w (partition, schema_name, table_name, first)
        CROSS JOIN LATERAL (
            SELECT * FROM triggerkit.events e
            WHERE e.database_id = %(database)s AND e.partition = w.partition
              AND e.position >= w.first AND e.position < %(end)s
              AND e.schema_name = w.schema_name AND e.table_name = w.table_name
              AND e.consumer_id IS NULL AND e.fault IS NULL
            ORDER BY e.position LIMIT %(limit)s) e
        ORDER BY e.position LIMIT %(limit)s) e
) e
WHERE coalesce(bytes_before, 0) < {READ_BYTES} ORDER BY position
"""  # noqa: S608 - of constants


class Part(NamedTuple):
    """A partition of one table's changes, from position `first` on."""

    partition: int
    schema: str
    table: str
    first: int


class Found(NamedTuple):
    """Entries in order, and the position before which there are no others."""

    entries: list[Entry]
    end: int


async def read_parts(
    connection: psycopg.AsyncConnection,
    database_id: int,
    parts: Sequence[Part],
    head: int,
    limit: int,
) -> Found:
    """Return at most `limit` entries of `parts`, from before position `head`.

    Rows that a backfill read for one consumer, and entries without their record, are left out. Of
    a table that seldom changes it may return none though there are some: after `Found.end`.
    """
    deadline, positions = monotonic() + READ_S, FIRST_POSITIONS
    begin = min(part.first for part in parts)
    while begin < head:
        end = min(head, begin + positions)
        wanted = [part for part in parts if part.first < end]
        cursor = await connection.execute(
            _READ,
            {
                "database": database_id,
                "partitions": [part.partition for part in wanted],
                "schemas": [part.schema for part in wanted],
                "tables": [part.table for part in wanted],
                "firsts": [max(part.first, begin) for part in wanted],
                "end": end,
                "limit": limit,
            },
            binary=True,
        )
        entries = [entry_of_row(row) for row in await cursor.fetchall()]
        if entries:
            return Found(entries, _end(entries, end, limit))
        begin, positions = end, min(4 * positions, MOST_POSITIONS)
        if monotonic() >= deadline:
            break
    return Found([], max(begin, min(part.first for part in parts)))


def _end(entries: list[Entry], end: int, limit: int) -> int:
    """Return before which position there is nothing but `entries`."""
    size_bytes = sum(len(entry.record or b"") + len(entry.changes or b"") for entry in entries)
    is_cut = len(entries) >= limit or size_bytes >= READ_BYTES
    return entries[-1].position + 1 if is_cut else end
