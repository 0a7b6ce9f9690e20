"""The table partitions that a log is written to, each ended by its positions or by its bytes."""

from __future__ import annotations

from typing import NamedTuple

import psycopg
from psycopg import sql

from triggerkit.log.retention import table_partitions

#: Most positions that a table partition holds; retention drops whole partitions.
TABLE_PARTITION_SIZE = 500_000

#: The fewest that one is made for.
SMALLEST_SIZE = 100

#: The bytes after which a table partition is ended where the log has no other limit.
TABLE_BYTES = 1024 * 1024 * 1024

#: The bytes that an entry takes in a table and its indexes beside its record.
ROW_BYTES = 250


class _Range(NamedTuple):
    first: int
    end: int


class LogTables:
    """The table partitions of one database's log.

    Their bounds are positions, and must be given when they are made. One that has its bytes before
    its positions are used up is ended all the same: the positions that are left in it are passed
    over. The next is made for about as many as it had.
    """

    def __init__(
        self, connection: psycopg.AsyncConnection, database_id: int, table_bytes: int
    ) -> None:
        self._connection = connection
        self._database_id = database_id
        self._table_bytes = table_bytes
        self._size = TABLE_PARTITION_SIZE
        #: The one that is being filled, and those that are planned after it.
        self._ranges: list[_Range] = []
        self._filled_bytes = 0
        #: Those that are planned, but not made yet.
        self._unmade: list[_Range] = []
        #: The end of the last that is made.
        self._end = 0
        #: Whether one was filled since this was last set to False.
        self.has_filled = False

    async def take_over(self, position: int) -> None:
        """Find the tables that are there for `position` and after it, and make those missing."""
        found = await table_partitions(self._connection, self._database_id)
        self._end = max((table.end for table in found), default=0)
        current = [table for table in found if table.end > position]
        self._ranges = [_Range(table.first, table.end) for table in current]
        if current:
            self._size = current[-1].end - current[-1].first
            self._filled_bytes = current[0].size_bytes
        await self.make(position)

    def place(self, position: int, size_bytes: int) -> int:
        """Return where an entry of `size_bytes` goes: to `position`, or on into the next table."""
        current = self._ranges[0]
        if position > current.first and self._filled_bytes >= self._table_bytes:
            self._size = max(SMALLEST_SIZE, min(2 * (position - current.first), self._size))
            position = current.end
        elif position >= current.end:
            self._size = min(2 * self._size, TABLE_PARTITION_SIZE)
        if position >= current.end:
            self._advance()
        self._filled_bytes += size_bytes + ROW_BYTES
        return position

    def grow(self, size_bytes: int) -> None:
        """Note that what was placed last has become larger."""
        self._filled_bytes += size_bytes

    def has(self, position: int) -> bool:
        """Return whether the tables are made up to before `position`."""
        return position <= self._end

    async def make(self, position: int) -> None:
        """Make the tables up to `position`, and one after it."""
        while len(self._ranges) < 2 or self._ranges[-2].end <= position:
            self._plan(position)
        await self._make_table(
            self._whole,
            "events",
            sql.SQL("FOR VALUES IN ({})").format(self._database_id),
            sql.SQL("(LIKE triggerkit.events INCLUDING DEFAULTS) PARTITION BY RANGE (position)"),
        )
        for planned in self._unmade:
            await self._make_table(
                f"{self._whole}_{planned.first}",
                self._whole,
                sql.SQL("FOR VALUES FROM ({}) TO ({})").format(*planned),
                sql.SQL("(LIKE triggerkit.events INCLUDING ALL)"),
            )
            self._end = planned.end
        self._unmade.clear()

    @property
    def _whole(self) -> str:
        return f"events_{self._database_id}"

    def _advance(self) -> None:
        self._filled_bytes = 0
        self.has_filled = True
        if len(self._ranges) == 1:
            self._plan(self._ranges[0].end)
        del self._ranges[0]

    def _plan(self, position: int) -> None:
        first = self._ranges[-1].end if self._ranges else self._end
        end = first + self._size
        planned = _Range(first, end if position < end else position + self._size)
        self._ranges.append(planned)
        self._unmade.append(planned)

    async def _make_table(
        self, name: str, parent: str, bound: sql.Composed, columns: sql.SQL
    ) -> None:
        """Make a partition of `parent`, unless it is there."""
        cursor = await self._connection.execute("SELECT to_regclass(%s)", [f"triggerkit.{name}"])
        if await cursor.fetchone() != (None,):
            return
        # Attached, not created as a partition: that would wait for all who read the log.
        async with self._connection.transaction():
            await self._connection.execute(
                sql.SQL("CREATE TABLE triggerkit.{} {}").format(sql.Identifier(name), columns)
            )
            await self._connection.execute(
                sql.SQL("ALTER TABLE triggerkit.{} ATTACH PARTITION triggerkit.{} {}").format(
                    sql.Identifier(parent), sql.Identifier(name), bound
                )
            )
