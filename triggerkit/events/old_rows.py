"""The rows before deletes that the WAL did not carry: the last versions that the log has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from time import monotonic
from typing import Final

import psycopg

from triggerkit.events.topics import Topic
from triggerkit.log.entry import Entry

#: Positions that are looked through at first.
FIRST_POSITIONS: Final = 16_384

#: Seconds that a search may take for the deletes of one batch.
SEARCH_S: Final = 0.5

#: No index of the log has keys: one look goes through a part of a partition, for all rows at once.
_FIND = """
SELECT DISTINCT ON (w.position) w.position, convert_to(e.record, 'UTF8')
FROM unnest(%(positions)s::bigint[], %(schemas)s::text[], %(tables)s::text[], %(keys)s::text[])
    AS w (position, schema_name, table_name, key)
JOIN triggerkit.events e ON e.database_id = %(database)s AND e.partition = %(partition)s
    AND e.position >= %(first)s AND e.position < %(end)s AND e.position < w.position
    AND e.key = w.key AND e.schema_name = w.schema_name AND e.table_name = w.table_name
WHERE e.action IN ('insert', 'update', 'read') AND e.record IS NOT NULL
ORDER BY w.position, e.position DESC
"""

_FIRST = "SELECT retained_from FROM triggerkit.databases WHERE id = %s"


def lacks_row(entry: Entry, topic: Topic) -> bool:
    """Return whether the row before a change is to be looked for."""
    return entry.action == "delete" and not topic.carries_old_rows


async def old_rows(
    connection: psycopg.AsyncConnection,
    database_id: int,
    entries: Sequence[Entry],
    wanted: Collection[int],
) -> dict[int, bytes]:
    """Return the rows before the deletes at the positions `wanted`, by position: those that are
    found in `entries`, all that there are of each of their keys between the first and the last, or
    in the log within `SEARCH_S` for each partition."""
    found: dict[int, bytes] = {}
    last: dict[tuple[str, str, str], bytes | None] = {}
    sought: list[Entry] = []
    for entry in entries:
        row = (entry.schema, entry.table, entry.key)
        if entry.position in wanted:
            record = last.get(row)
            if record is None:
                sought.append(entry)
            else:
                found[entry.position] = record
        last[row] = entry.record
    for partition in {entry.partition for entry in sought}:
        of_it = [entry for entry in sought if entry.partition == partition]
        found |= await _search(connection, database_id, of_it)
    return found


async def _search(
    connection: psycopg.AsyncConnection, database_id: int, sought: Sequence[Entry]
) -> dict[int, bytes]:
    row = await (await connection.execute(_FIRST, [database_id])).fetchone()
    first = 1 if row is None else int(row[0])
    left = {entry.position: entry for entry in sought}
    found: dict[int, bytes] = {}
    end, positions, deadline = max(left), FIRST_POSITIONS, monotonic() + SEARCH_S
    async with connection.transaction():
        # What it would compile takes longer than the search.
        await connection.execute("SET LOCAL jit = off")
        while left and end > first and monotonic() < deadline:
            begin = max(first, end - positions)
            cursor = await connection.execute(
                _FIND,
                {
                    "positions": list(left),
                    "schemas": [entry.schema for entry in left.values()],
                    "tables": [entry.table for entry in left.values()],
                    "keys": [entry.key for entry in left.values()],
                    "database": database_id,
                    "partition": sought[0].partition,
                    "first": begin,
                    "end": end,
                },
                binary=True,
            )
            for position, record in await cursor.fetchall():
                found[position] = record
                del left[position]
            end, positions = begin, 2 * positions
    return found
