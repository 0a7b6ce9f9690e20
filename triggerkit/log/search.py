"""Search the log: for the changes of one row, the entry of a commit, the first since a time.

No index of the log has keys: the entries of the key's partition are looked through, the newest
first, until there are enough or the time is over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic

import psycopg

from triggerkit.log.entry import PARTITIONS, Entry, partition_of
from triggerkit.log.reader import STORED, entry_of_row

#: Seconds that a search may take; once one change was found, those for more of them.
SEARCH_S = 0.5
MORE_S = 0.15

#: Positions that are looked through at first, and how long one look should take.
FIRST_POSITIONS = 16_384
LOOK_S = 0.1

#: Transactions take their commit time shortly before they are in the order of the log.
CLOCK_SLACK = timedelta(seconds=1)

_BOUNDS = "SELECT retained_from, next_position FROM triggerkit.databases WHERE id = %s"

#: Where the entries are that the slot of an epoch captured: only there do LSNs grow.
_SLOT_BOUNDS = """
SELECT greatest(d.retained_from, (SELECT max(p.next_position) FROM triggerkit.past_slots p
        WHERE p.database_id = d.id AND p.epoch < %(epoch)s)),
    coalesce((SELECT p.next_position FROM triggerkit.past_slots p
        WHERE p.database_id = d.id AND p.epoch = %(epoch)s), d.next_position)
FROM triggerkit.databases d WHERE d.id = %(database)s
"""

_FIND = f"""
SELECT {STORED} FROM triggerkit.events
WHERE database_id = %(database)s AND partition = %(partition)s
  AND position >= %(first)s AND position < %(end)s
  AND key = %(key)s AND table_name = %(table)s AND schema_name = %(schema)s
ORDER BY position DESC LIMIT %(limit)s
"""  # noqa: S608 - of constants

#: The first entry at or after a position, by one look into each partition's index.
_FIRST_FROM = """
SELECT e.position, e.commit_lsn, e.commit_idx, e.commit_at
FROM generate_series(0, %s) p CROSS JOIN LATERAL (
    SELECT position, commit_lsn, commit_idx, commit_at FROM triggerkit.events
    WHERE database_id = %s AND partition = p AND position >= %s ORDER BY position LIMIT 1) e
ORDER BY e.position LIMIT 1
"""


@dataclass(slots=True)
class Searched:
    """The changes of a row, the newest first. All entries from `searched_from` on were looked at;
    `is_whole`: the log has none before."""

    searched_from: int
    is_whole: bool = False
    entries: list[Entry] = field(default_factory=list)


async def search_row(
    connection: psycopg.AsyncConnection,
    database_id: int,
    schema: str,
    table: str,
    key: str,
    limit: int,
    search_s: float = SEARCH_S,
) -> Searched:
    """Return the last changes of a row, at most `limit`; `key` is as the log has it, JSON."""
    row = await (await connection.execute(_BOUNDS, [database_id])).fetchone()
    first, end = (1, 1) if row is None else row
    found = Searched(end)
    wanted = {
        "database": database_id,
        "partition": partition_of(schema, table, key),
        "schema": schema,
        "table": table,
        "key": key,
    }
    deadline, positions = monotonic() + search_s, FIRST_POSITIONS
    async with connection.transaction():
        # What it would compile takes longer than the search.
        await connection.execute("SET LOCAL jit = off")
        while found.searched_from > first and len(found.entries) < limit:
            began = monotonic()
            if began >= deadline:
                break
            end = found.searched_from
            found.searched_from = max(first, end - positions)
            bounds = {"first": found.searched_from, "end": end}
            cursor = await connection.execute(
                _FIND, {**wanted, **bounds, "limit": limit - len(found.entries)}, binary=True
            )
            found.entries += map(entry_of_row, await cursor.fetchall())
            took_s = monotonic() - began
            if found.entries:
                deadline = min(deadline, began + MORE_S)
            positions = _next(positions, took_s, deadline - monotonic())
    found.is_whole = found.searched_from <= first
    return found


async def position_of_commit(
    connection: psycopg.AsyncConnection,
    database_id: int,
    slot_epoch: int,
    commit_lsn: int,
    commit_idx: int,
) -> int | None:
    """Return the position of a change that a slot captured, found by halving; None without it."""
    cursor = await connection.execute(_SLOT_BOUNDS, {"database": database_id, "epoch": slot_epoch})
    row = await cursor.fetchone()
    if row is None:
        return None
    low, high = row
    while low < high:
        middle = (low + high) // 2
        found = await _first_from(connection, database_id, middle)
        if found is None or found[1:3] >= (commit_lsn, commit_idx):
            high = middle
        else:
            low = found[0] + 1
    found = await _first_from(connection, database_id, low)
    return found[0] if found is not None and found[1:3] == (commit_lsn, commit_idx) else None


async def first_since(
    connection: psycopg.AsyncConnection,
    database_id: int,
    at: datetime,
    low: int,
    high: int,
    slack: timedelta = timedelta(0),
) -> int:
    """Return the first position from `low` to before `high` whose transaction was committed at or
    after `at`, or no more than `slack` before it, found by halving; `high` without one."""
    while low < high:
        middle = (low + high) // 2
        found = await _first_from(connection, database_id, middle)
        # Nothing is taken from `at`, which may be the first moment there is.
        if found is None or found[3] + slack >= at:
            high = middle
        else:
            low = found[0] + 1
    return low


async def _first_from(
    connection: psycopg.AsyncConnection, database_id: int, position: int
) -> tuple[int, int, int, datetime] | None:
    cursor = await connection.execute(_FIRST_FROM, [PARTITIONS - 1, database_id, position])
    return await cursor.fetchone()


def _next(positions: int, took_s: float, left_s: float) -> int:
    """Return how many positions to look through next: as many as the time allows."""
    rate = positions / max(took_s, 0.001)
    return max(FIRST_POSITIONS // 4, min(4 * positions, int(rate * min(LOOK_S, max(left_s, 0.01)))))
