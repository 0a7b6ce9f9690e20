"""Gaps: changes that a consumer will never get, shown until its tables were read anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from shlex import quote
from typing import Literal, NamedTuple

import psycopg

from triggerkit.configuration.table_name import table_text
from triggerkit.state.reading import Reads, rows_of

#: By what changes were lost: the slot, the log's limit, a table that was not published for a while,
#: or one whose rows were given other keys.
Kind = Literal["slot", "retention", "table", "key"]

#: A gap that is open takes up what is found of its kind later.
_MARK = """
INSERT INTO triggerkit.gaps (consumer_id, kind, schema_name, table_name, relation_oid, from_lsn,
    to_lsn, cause, ended_at)
SELECT c.id, %(kind)s, %(schema)s, %(table)s, %(oid)s, %(from_lsn)s, %(to_lsn)s, %(cause)s,
    CASE WHEN %(is_over)s THEN clock_timestamp() END
FROM triggerkit.consumers c WHERE {which}
ON CONFLICT (consumer_id, kind, schema_name, table_name) WHERE closed_at IS NULL DO {then}
"""

_GO_ON = """
UPDATE SET relation_oid = excluded.relation_oid, to_lsn = excluded.to_lsn, cause = excluded.cause,
    ended_at = excluded.ended_at
"""

_MARK_CONSUMERS = _MARK.format(which="c.id = ANY (%(consumers)s)", then=_GO_ON)

_FOLLOWERS = "c.database_id = %(database)s AND c.definition -> 'tables' ? %(name)s"
_MARK_FOLLOWERS = _MARK.format(which=_FOLLOWERS, then=_GO_ON)
_NOTE_FOLLOWERS = _MARK.format(which=_FOLLOWERS, then="NOTHING")

_END = """
UPDATE triggerkit.gaps g SET to_lsn = %s, ended_at = clock_timestamp()
FROM triggerkit.consumers c
WHERE c.id = g.consumer_id AND c.database_id = %s AND g.kind = 'table' AND g.relation_oid = %s
  AND g.schema_name = %s AND g.table_name = %s AND g.closed_at IS NULL AND g.ended_at IS NOT NULL
"""

#: A table's gap is closed when it was read whole after the gap had ended; one of all tables when
#: all were.
_CLOSE = """
UPDATE triggerkit.gaps g SET closed_at = clock_timestamp(), closed_by = 'backfill'
FROM triggerkit.consumers c
WHERE c.id = g.consumer_id AND c.database_id = %s AND g.closed_at IS NULL
  AND g.ended_at IS NOT NULL AND NOT EXISTS (
    SELECT FROM jsonb_array_elements_text(c.definition -> 'tables') t (name)
    WHERE (g.table_name = '' OR t.name = triggerkit.table_text(g.schema_name, g.table_name))
      AND NOT EXISTS (
        SELECT FROM triggerkit.backfills b
        WHERE b.consumer_id = c.id AND b.state = 'completed' AND b.created_at >= g.ended_at
          AND b.lower_bound IS NULL AND b.upper_bound ->> 'until' IS NULL
          AND triggerkit.table_text(b.schema_name, b.table_name) = t.name))
RETURNING c.name
"""

_ACCEPT = """
UPDATE triggerkit.gaps SET closed_at = clock_timestamp(), closed_by = %(actor)s
WHERE consumer_id = %(consumer)s AND closed_at IS NULL
  AND (%(table)s::text IS NULL OR triggerkit.table_text(schema_name, table_name) = %(table)s)
"""

_OPEN = """
SELECT g.consumer_id, g.kind,
    nullif(triggerkit.table_text(g.schema_name, g.table_name), '.') AS "table", g.relation_oid,
    g.from_lsn, g.to_lsn, g.cause, g.found_at, g.ended_at
FROM triggerkit.gaps g JOIN triggerkit.consumers c ON c.id = g.consumer_id
WHERE g.closed_at IS NULL AND (%(consumer)s::int IS NULL OR c.id = %(consumer)s)
ORDER BY g.id
"""


class LostChanges(NamedTuple):
    """What was lost of a table between two places of the WAL; `to_lsn` None while it goes on."""

    kind: Kind
    schema: str
    table: str
    relation_oid: int
    from_lsn: int
    to_lsn: int | None
    cause: str

    def parameters(self, database_id: int) -> dict[str, object]:
        """Return the values for the statements that mark it."""
        return {
            "kind": self.kind,
            "schema": self.schema,
            "table": self.table,
            "oid": self.relation_oid,
            "from_lsn": self.from_lsn,
            "to_lsn": self.to_lsn,
            "cause": self.cause,
            "is_over": self.to_lsn is not None,
            "database": database_id,
            "name": table_text(self.schema, self.table),
        }


@dataclass(frozen=True, slots=True)
class Gap:
    """Changes that a consumer never gets, of `table` or, where that is None, of all its tables.

    They lie between `from_lsn` and `to_lsn`, None where those are not known. `ended_at` is None
    while it goes on: until then a backfill does not close it.
    """

    kind: Kind
    table: str | None
    relation_oid: int | None
    from_lsn: int | None
    to_lsn: int | None
    cause: str
    found_at: datetime
    ended_at: datetime | None

    def remedy(self, consumer: str, table: str | None = None) -> str:
        """Return the command that closes it for `consumer`, by reading the tables, or only one,
        anew."""
        table = self.table or table
        start = f"triggerkit backfill start {consumer}"
        if table is not None:
            start += f" --table {quote(table)}"
        return start if self.ended_at is not None else f"triggerkit apply && {start}"


@dataclass(frozen=True, slots=True)
class _Row(Gap):
    consumer_id: int = 0


async def mark_gap(
    state: psycopg.AsyncConnection,
    consumer_ids: Sequence[int],
    reason: str,
    *,
    kind: Kind = "slot",
    from_lsn: int | None = None,
    to_lsn: int | None = None,
) -> None:
    """Show with the consumers that changes of all their tables are missing, and why."""
    await state.execute(
        _MARK_CONSUMERS,
        {
            "kind": kind,
            "schema": "",
            "table": "",
            "oid": None,
            "from_lsn": from_lsn,
            "to_lsn": to_lsn,
            "cause": reason,
            "is_over": True,
            "consumers": list(consumer_ids),
        },
    )


async def mark_lost(
    state: psycopg.AsyncConnection, database_id: int, lost: LostChanges
) -> list[str]:
    """Show with all that follow a table that changes of it are missing; return their names."""
    await state.execute(_MARK_FOLLOWERS, lost.parameters(database_id))
    cursor = await state.execute(
        "SELECT name FROM triggerkit.consumers "
        "WHERE database_id = %s AND definition -> 'tables' ? %s ORDER BY 1",
        [database_id, table_text(lost.schema, lost.table)],
    )
    return [name for (name,) in await cursor.fetchall()]


async def note_lost(state: psycopg.AsyncConnection, database_id: int, lost: LostChanges) -> None:
    """Show with all that follow a table that changes of it are missing, unless that is known."""
    await state.execute(_NOTE_FOLLOWERS, lost.parameters(database_id))


async def end_lost(
    state: psycopg.AsyncConnection,
    database_id: int,
    relation_oid: int,
    name: tuple[str, str],
    lsn: int,
) -> None:
    """Note that a relation has the followed `name` again, from a place of the WAL on."""
    await state.execute(_END, [lsn, database_id, relation_oid, *name])


async def close_gaps(state: psycopg.AsyncConnection, database_id: int) -> list[str]:
    """Close the gaps whose tables were all read since; return the consumers' names."""
    cursor = await state.execute(_CLOSE, [database_id])
    return [name for (name,) in await cursor.fetchall()]


async def accept_gaps(
    state: psycopg.AsyncConnection, consumer_id: int, actor: str, table: str | None = None
) -> int:
    """Close a consumer's open gaps, or those of one table, without reading anything; how many."""
    parameters = {"consumer": consumer_id, "actor": actor, "table": table}
    return (await state.execute(_ACCEPT, parameters)).rowcount


async def open_gaps(state: Reads, consumer_id: int | None = None) -> dict[int, list[Gap]]:
    """Return the gaps that are open, by consumer, the oldest first."""
    rows = await rows_of(state, _OPEN, {"consumer": consumer_id}, into=_Row)
    found: dict[int, list[Gap]] = {}
    for row in rows:
        gap = Gap(
            row.kind,
            row.table,
            row.relation_oid,
            row.from_lsn,
            row.to_lsn,
            row.cause,
            row.found_at,
            row.ended_at,
        )
        found.setdefault(row.consumer_id, []).append(gap)
    return found
