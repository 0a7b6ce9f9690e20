"""A backfill that is not finished, as the state has it, and what is noted there as it reads on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.backfill.rows import Bounds, Chunk, Place
from triggerkit.consumers.definition import TableName
from triggerkit.log.writing import Statement

#: From this position on, unrelated updates may be the only bearers of rows.
_BEGIN = """
UPDATE triggerkit.backfills
SET first_position = coalesce(first_position, %s), last_position = NULL WHERE id = %s
RETURNING first_position
"""

_START = "UPDATE triggerkit.backfills SET upper_bound = %s, rows_estimated = %s WHERE id = %s"

#: Committed together with the chunk's rows. One that was paused with its last chunk in flight is
#: complete all the same. What was closed before its last chunk came is closed again after it.
_PROGRESS = """
UPDATE triggerkit.backfills
SET cursor = %s, rows_read = rows_read + %s, rows_logged = rows_logged + %s,
    state = CASE WHEN %s AND state IN ('active', 'paused') THEN 'completed' ELSE state END,
    finished_at = CASE WHEN %s THEN clock_timestamp() ELSE finished_at END,
    last_position = CASE WHEN %s OR last_position IS NOT NULL THEN %s END
WHERE id = %s
"""


class Reached(NamedTuple):
    """How far a table is read: up to `after` of the rows with a sort value or, with `nulls`, of
    those without one. Once that is done, rows are read `again` whose changes left out a value, from
    this position of the log on."""

    after: Place | None = None
    nulls: bool = False
    again: int | None = None


@dataclass(slots=True)
class OpenBackfill:
    """A backfill that is not finished, as the state has it."""

    id: int
    consumer_id: int
    database_id: int
    schema_name: str
    table_name: str
    sort_column: str | None
    lower_bound: list[str] | None
    upper_bound: dict[str, Any] | None
    cursor: dict[str, Any] | None
    rows_per_s: int | None

    @property
    def bounds(self) -> Bounds:
        """Describe the rows that are asked for."""
        lower = self.lower_bound[0] if self.lower_bound else None
        return Bounds(lower, (self.upper_bound or {}).get("until"))

    @property
    def is_begun(self) -> bool:
        """Return whether the end of the reading was determined already."""
        return self.upper_bound is not None and "last" in self.upper_bound

    @property
    def table(self) -> TableName:
        """The table it reads."""
        return TableName(self.schema_name, self.table_name)

    @property
    def reached(self) -> Reached:
        """How far it was when this was read from the state."""
        if self.cursor is None:
            return Reached()
        after = self.cursor["after"]
        place = list(map(str, after)) if isinstance(after, list) else None
        return Reached(place, bool(self.cursor["nulls"]), self.cursor.get("again"))

    def after(self, chunk: Chunk, nulls: bool, first_position: int) -> Reached:
        """Return how far the table is read with a chunk.

        Rows without a sort value come after all others, and not when there are bounds.
        """
        if not chunk.finished:
            return Reached(chunk.rows[-1].place, nulls)
        if not nulls and self.sort_column is not None and self.bounds.are_open:
            return Reached(nulls=True)
        return Reached(again=first_position)


async def begin_span(pool: AsyncConnectionPool, backfill: OpenBackfill, position: int) -> int:
    """Note that reading begins, at `position` of the log unless it did before; returns where it
    did."""
    async with pool.connection() as connection:
        cursor = await connection.execute(_BEGIN, [position, backfill.id])
        row = await cursor.fetchone()
    # It may have been deleted with its consumer: then nothing is to be read.
    return position if row is None else int(row[0])


async def note_bound(
    pool: AsyncConnectionPool, backfill: OpenBackfill, bound: dict[str, Any], estimate: int
) -> None:
    """Note up to where is read, and about how many rows that are."""
    async with pool.connection() as connection:
        await connection.execute(_START, [Jsonb(bound), estimate, backfill.id])
    backfill.upper_bound = bound


def progress_of(
    backfill: OpenBackfill,
    reached: Reached,
    rate: float | None,
    rows: tuple[int, int],
    head: int,
    *,
    is_last: bool,
) -> Statement:
    """Return the statement that stores how far a chunk brings the backfill: its `rows` that were
    read and that are in the log, and the log's position after it."""
    cursor = {**reached._asdict(), "rows_per_s": None if rate is None else round(rate, 1)}
    return Statement(
        _PROGRESS,
        [Jsonb(cursor), *rows, is_last, is_last, is_last, head, backfill.id],
    )
