"""Read what is behind a pulled consumer's free cursors: one read locks them and has the entries."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import psycopg

from triggerkit.consumers.pull.consumers import FIND, Pulled
from triggerkit.log.entry import COLUMNS, PARTITIONS
from triggerkit.log.reader import STORED, stored

#: The messages of one answer take about so much at most; one alone may be larger.
MAX_BYTES = 8 * 1024 * 1024

#: Locks free cursors, the one furthest behind first, and reads on from them; a cursor without
#: entries has a row of its own. Cursors behind the limit are not locked. A range of which some is
#: settled already is read to its end first, so that what is settled in it stays few.
_READ = """
SELECT e.*, c.partition, c.bound
FROM (
    SELECT partition, position, settled, CASE WHEN settled <> '{{}}'
        THEN greatest(batch_last, settled[cardinality(settled)]) END AS bound
    FROM triggerkit.cursors
    WHERE consumer_id = %(consumer_id)s
      AND (lease_until IS NULL OR lease_until <= clock_timestamp())
    ORDER BY position, partition FOR NO KEY UPDATE SKIP LOCKED
) c LEFT JOIN LATERAL ({entries}) e ON true
LIMIT %(limit)s + {partitions}
"""

#: What of a row of `_READ` is behind the columns of `STORED`: whether values were left out since
#: they are large, the cursor's partition, and where its bound is.
IS_CUT, PARTITION, BOUND = range(len(COLUMNS), len(COLUMNS) + 3)

_BEHIND = """
SELECT {columns} FROM triggerkit.events
WHERE database_id = %(database_id)s AND partition = {partition} AND position > c.position
  AND (c.bound IS NULL OR position <= c.bound AND position <> ALL (c.settled))
ORDER BY position LIMIT %(limit)s
"""

#: All partitions in one order, as many entries of each.
_BEHIND_WHOLE = f"""
SELECT e.* FROM generate_series(0, {PARTITIONS - 1}) p
CROSS JOIN LATERAL ({_BEHIND.format(columns="{columns}", partition="p")}) e
ORDER BY e.position LIMIT %(limit)s
"""  # noqa: S608 - of constants

#: Values of which as many as there may be rows are within the limit; others are left out, unread.
_SMALL = {
    name: f"CASE WHEN octet_length({name}) <= %(most_bytes)s THEN {name} END"
    for name in ("record", "changes")
}
_CUT = "octet_length(record) > %(most_bytes)s OR octet_length(changes) > %(most_bytes)s AS is_cut"
_SMALL_ENTRIES = f"{stored(**_SMALL)}, {_CUT}"

# Sizes are known without the values: what is beyond the limit is neither read nor sent. It is taken
# of the entries in their final order, so that none before the last is left out.
_ENTRIES = f"""
SELECT {STORED}, false AS is_cut FROM (
    SELECT *, sum(coalesce(octet_length(record), 0) + coalesce(octet_length(changes), 0))
        OVER (ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM ({{behind}}) e
) e
WHERE coalesce(bytes_before, 0) <= {MAX_BYTES} ORDER BY position
"""  # noqa: S608 - of constants


def _statements(behind: str, partitions: int) -> tuple[str, str]:
    """Return the statement when all values are small, and the one for any values, which costs a
    third more for counting bytes."""
    small = behind.format(columns=_SMALL_ENTRIES, partition="c.partition")
    entries = _ENTRIES.format(behind=behind.format(columns="*", partition="c.partition"))
    return (
        _READ.format(entries=small, partitions=partitions),
        _READ.format(entries=entries, partitions=partitions),
    )


READ_PARTITIONS = _statements(_BEHIND, PARTITIONS)

#: The same for the one cursor over all partitions.
READ_WHOLE = _statements(_BEHIND_WHOLE, 1)


class Changed(Exception):
    """The consumer changed meanwhile; nothing was done."""


async def read(
    connection: psycopg.AsyncConnection, pulled: Pulled, scan: int
) -> tuple[list[Any], bool]:
    """Return at most `scan` entries behind each free cursor, and whether any message is set aside.

    Begins the transaction that the cursors are locked in.

    Raises:
        Changed: the consumer changed since it was loaded.
    """
    consumer = pulled.consumer
    parameters = {
        "consumer_id": consumer.id,
        "database_id": consumer.database_id,
        "limit": scan,
        "most_bytes": MAX_BYTES // scan,
    }
    small, large = READ_WHOLE if pulled.is_ordered_as_a_whole else READ_PARTITIONS
    rows, is_any_set_aside = await _read(connection, pulled, small, parameters, begin=True)
    if any(map(itemgetter(IS_CUT), rows)):
        rows, is_any_set_aside = await _read(connection, pulled, large, parameters, begin=False)
    return rows, is_any_set_aside


async def _read(
    connection: psycopg.AsyncConnection,
    pulled: Pulled,
    statement: str,
    parameters: dict[str, int],
    *,
    begin: bool,
) -> tuple[list[Any], bool]:
    async with connection.pipeline():
        if begin:
            await connection.execute("BEGIN")
        rows = await connection.execute(statement, parameters, binary=True)
        # After the cursors are locked: a replay moves them in the transaction that it is in.
        found = await connection.execute(FIND, [pulled.consumer.name])
    row = await found.fetchone()
    if row is None or row[:-1] != pulled.found:
        await connection.rollback()
        raise Changed
    return await rows.fetchall(), row[-1]
