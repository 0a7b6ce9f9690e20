"""Search the log: for the changes of one row, the entry of a commit, the first since a time.

No index of the log has keys: the entries of the key's partition are looked through, the newest
first, until there are enough or the time is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg

from triggerkit.errors import TriggerkitError
from triggerkit.log.entry import PARTITIONS, Entry, partition_of
from triggerkit.log.reader import STORED, entry_of_row
from triggerkit.state.reading import Reads, rows_of

#: Seconds that a search may take; once one change was found, those for more of them.
SEARCH_S = 0.5
MORE_S = 0.05

#: Transactions take their commit time shortly before they are in the order of the log.
CLOCK_SLACK = timedelta(seconds=1)

_BOUNDS = "SELECT retained_from, next_position, log FROM triggerkit.databases WHERE id = %s"

#: Where the entries are that the slot of an epoch captured: only there do LSNs grow.
_SLOT_BOUNDS = """
SELECT greatest(d.retained_from, (SELECT max(p.next_position) FROM triggerkit.past_slots p
        WHERE p.database_id = d.id AND p.epoch < %(epoch)s)),
    coalesce((SELECT p.next_position FROM triggerkit.past_slots p
        WHERE p.database_id = d.id AND p.epoch = %(epoch)s), d.next_position), d.log
FROM triggerkit.databases d WHERE d.id = %(database)s
"""

#: The newest entries of a key. Once the time is over what comes next is taken, and left out then.
_FIND = f"""
SELECT {STORED}, key = %(key)s AND table_name = %(table)s AND schema_name = %(schema)s
FROM triggerkit.events
WHERE database_id = %(database)s AND partition = %(partition)s
  AND position >= %(first)s AND position < %(end)s
  AND (key = %(key)s AND table_name = %(table)s AND schema_name = %(schema)s
    OR clock_timestamp() > statement_timestamp() + %(seconds)s * interval '1 second')
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


class Bounds(NamedTuple):
    """The log of a database: from position `first` to before `end`."""

    database_id: int
    first: int
    end: int


def not_searched() -> TriggerkitError:
    """Return what is said where changes of a log on Kafka are looked for."""
    return TriggerkitError(
        "the log is on Kafka, where changes are not looked for: trace, why and verify need a log "
        "in Postgres; see how far consumers are, and what they set aside, with: triggerkit status, "
        "triggerkit messages list"
    )


async def bounds_of(reads: Reads, database_id: int) -> Bounds:
    """Return from where to where a database's log goes.

    Raises:
        TriggerkitError: it is on Kafka.
    """
    rows = await rows_of(reads, _BOUNDS, [database_id])
    first, end, place = rows[0] if rows else (1, 1, "postgres")
    if place == "kafka":
        raise not_searched()
    return Bounds(database_id, first, end)


async def search_row(
    connection: psycopg.AsyncConnection,
    log: Bounds,
    schema: str,
    table: str,
    key: str,
    limit: int,
    search_s: float = SEARCH_S,
) -> Searched:
    """Return the last changes of a row, at most `limit`; `key` is as the log has it, JSON."""
    found = Searched(log.end)
    wanted = {
        "database": log.database_id,
        "partition": partition_of(schema, table, key),
        "schema": schema,
        "table": table,
        "key": key,
        "first": log.first,
    }
    await _look(connection, {**wanted, "end": log.end, "limit": 1}, search_s, found)
    if found.entries and limit > 1:
        before = {"end": found.searched_from, "limit": limit - 1}
        await _look(connection, {**wanted, **before}, min(search_s, MORE_S), found)
    return found


async def _look(
    connection: psycopg.AsyncConnection, wanted: Mapping[str, Any], seconds: float, found: Searched
) -> None:
    """Look from the end of what is `wanted` to its beginning, until there are enough or the time is
    over."""
    given = {**wanted, "seconds": seconds}
    async with connection.transaction():
        # What it would compile takes longer than the search.
        await connection.execute("SET LOCAL jit = off")
        rows = await (await connection.execute(_FIND, given, binary=True)).fetchall()
    for *row, fits in rows:
        entry = entry_of_row(row)
        if not fits:
            found.searched_from = entry.position + 1
            return
        found.entries.append(entry)
        found.searched_from = entry.position
    if len(rows) < wanted["limit"]:
        found.searched_from, found.is_whole = wanted["first"], True


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
    low, high, place = row
    if place == "kafka":
        raise not_searched()
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
