"""Reading a table in chunks, each with the snapshot it was read by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

import psycopg
from psycopg import sql

from triggerkit.change import Key, Record
from triggerkit.consumers.definition import TableName
from triggerkit.consumers.snapshot import Snapshot
from triggerkit.errors import PreflightFailed
from triggerkit.values import decoder_for

#: Rows of the first chunk, and the most of any.
FIRST_ROWS = 200
MOST_ROWS = 5_000

#: A chunk should take no longer than this to read, and hold no more bytes than this.
TARGET_S = 0.25
TARGET_BYTES = 4 * 1024 * 1024

#: A cursor or bound: the order columns' values as Postgres prints them.
Place = list[str]

_COLUMNS = """
SELECT a.attname, coalesce(a.attnum = ANY (i.indkey), false)
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped
  AND a.attgenerated = ''
ORDER BY a.attnum
"""

_KEY_ORDER = """
SELECT a.attname FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, ord)
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
WHERE i.indisprimary AND n.nspname = %s AND c.relname = %s ORDER BY k.ord
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its primary key as text, its values, and its place in the reading order."""

    key: Key
    record: Record
    place: Place


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows read by one snapshot, in order; `finished` when the phase has no more after them."""

    snapshot: Snapshot
    rows: list[Row]
    finished: bool


class ChunkReader:
    """Reads one table by keyset pagination, ordered by a sort column and the primary key."""

    def __init__(
        self, connection: psycopg.AsyncConnection, table: TableName, sort_by: str | None
    ) -> None:
        self._connection = connection
        self._table = table
        self._sort_by = sort_by
        self._columns: list[str] = []
        self._key: list[str] = []
        self._limit = FIRST_ROWS

    async def open(self) -> None:
        """Look up the table's columns.

        Raises:
            PreflightFailed: the table, its primary key or the sort column is missing.
        """
        cursor = await self._connection.execute(_COLUMNS, self._table)
        self._columns = [name for name, _ in await cursor.fetchall()]
        cursor = await self._connection.execute(_KEY_ORDER, self._table)
        self._key = [name for (name,) in await cursor.fetchall()]
        if not self._columns or not self._key:
            raise PreflightFailed(f"table {self._table} does not exist or has no primary key")
        if self._sort_by is not None and self._sort_by not in self._columns:
            raise PreflightFailed(
                f"table {self._table} has no column {self._sort_by!r} to sort by; "
                f"it has {', '.join(self._columns)}"
            )

    async def upper_bound(self) -> Place | None:
        """The last place in the reading order now; None for a table without any."""
        query = sql.SQL("SELECT {} FROM {} {} ORDER BY {} LIMIT 1").format(
            self._list(self._order),
            sql.Identifier(*self._table),
            self._where([self._not_null()]),
            self._list(self._order, sql.SQL(" DESC")),
        )
        rows = await self._texts(query, [])
        return rows[0] if rows else None

    async def estimate(self) -> int:
        """About how many rows the table has; exact for a small one."""
        cursor = await self._connection.execute(
            "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass(%s)",
            [sql.Identifier(*self._table).as_string(self._connection)],
        )
        row = await cursor.fetchone()
        if row and row[0] > 100_000:
            return int(row[0])
        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*self._table))
        cursor = await self._connection.execute(query)
        row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def read(self, after: Place | None, until: Place | None, *, nulls: bool) -> Chunk:
        """The next chunk: places after `after` up to `until`, or the rows without a sort value."""
        order = self._key if nulls else self._order
        conditions = [self._is_null() if nulls else self._not_null()]
        parameters: Place = []
        for operator, place in ((">", after), ("<=", None if nulls else until)):
            if place is not None:
                conditions.append(self._compare(order, operator))
                parameters += place
        query = sql.SQL("SELECT {} FROM {} {} ORDER BY {} LIMIT {}").format(
            self._list(self._columns),
            sql.Identifier(*self._table),
            self._where(conditions),
            self._list(order),
            sql.Literal(self._limit),
        )
        started = monotonic()
        async with self._connection.transaction():
            await self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor = await self._connection.execute("SELECT txid_current_snapshot()::text")
            snapshot_row = await cursor.fetchone()
            cursor = await self._connection.execute(query, parameters)
        assert snapshot_row is not None
        rows, size_bytes = self._rows(cursor, order)
        finished = len(rows) < self._limit
        self._adapt(len(rows), size_bytes, monotonic() - started)
        return Chunk(Snapshot.parse(snapshot_row[0]), rows, finished)

    @property
    def _order(self) -> list[str]:
        return [*([self._sort_by] if self._sort_by else []), *self._key]

    def _rows(self, cursor: psycopg.AsyncCursor, order: list[str]) -> tuple[list[Row], int]:
        # Raw texts, decoded as the stream's are, so that a value is the same from either side.
        result = cursor.pgresult
        assert result is not None
        columns = range(len(self._columns))
        decoders = [decoder_for(result.ftype(i)) for i in columns]
        key_at = [self._columns.index(name) for name in self._key]
        order_at = [self._columns.index(name) for name in order]
        rows, size_bytes = [], 0
        for number in range(result.ntuples):
            raw = [result.get_value(number, i) for i in columns]
            size_bytes += sum(len(value) for value in raw if value is not None)
            record = {
                name: None if value is None else decode(value)
                for name, decode, value in zip(self._columns, decoders, raw, strict=True)
            }
            key = tuple((raw[i] or b"").decode() for i in key_at)
            rows.append(Row(key, record, [(raw[i] or b"").decode() for i in order_at]))
        return rows, size_bytes

    def _adapt(self, rows: int, size_bytes: int, seconds: float) -> None:
        if rows == 0:
            return
        by_time = self._limit * 2 if seconds < TARGET_S / 2 else rows * TARGET_S / seconds
        by_size = TARGET_BYTES * rows / max(size_bytes, 1)
        self._limit = max(1, min(MOST_ROWS, int(by_time), int(by_size)))

    async def _texts(self, query: sql.Composed, parameters: Sequence[str]) -> list[Place]:
        cursor = await self._connection.execute(query, parameters)
        result = cursor.pgresult
        assert result is not None
        return [
            [(result.get_value(row, i) or b"").decode() for i in range(result.nfields)]
            for row in range(result.ntuples)
        ]

    def _compare(self, order: list[str], operator: str) -> sql.Composable:
        places = sql.SQL(", ").join([sql.Placeholder()] * len(order))
        return sql.SQL("({}) {} ({})").format(self._list(order), sql.SQL(operator), places)

    def _not_null(self) -> sql.Composable:
        return self._null_test(sql.SQL("IS NOT NULL"))

    def _is_null(self) -> sql.Composable:
        return self._null_test(sql.SQL("IS NULL"))

    def _null_test(self, test: sql.SQL) -> sql.Composable:
        if self._sort_by is None:
            return sql.SQL("true")
        return sql.SQL("{} {}").format(sql.Identifier(self._sort_by), test)

    @staticmethod
    def _where(conditions: Sequence[sql.Composable]) -> sql.Composable:
        return sql.SQL("WHERE {}").format(sql.SQL(" AND ").join(conditions))

    @staticmethod
    def _list(names: Sequence[str], suffix: sql.SQL | None = None) -> sql.Composed:
        suffix = suffix or sql.SQL("")
        return sql.SQL(", ").join([sql.Identifier(n) + suffix for n in names])
