"""Reading a table in chunks, each with the snapshot it was read by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

import psycopg
from psycopg import sql
from psycopg.errors import QueryCanceled

from triggerkit.change import Key, Record
from triggerkit.consumers.backfill.rows import (
    Bounds,
    Chunk,
    Place,
    Row,
    row_reader,
    values_of,
)
from triggerkit.consumers.backfill.snapshot import Snapshot
from triggerkit.consumers.backfill.table_facts import (
    find_operators,
    is_partitioned,
    key_of,
    refuse_policies,
)
from triggerkit.consumers.definition import TableName
from triggerkit.errors import PreflightFailed
from triggerkit.replication.catalog import type_decoders
from triggerkit.replication.publication.columns import published_columns
from triggerkit.replication.sighting import sight_table
from triggerkit.replication.slot.replication_slot import PUBLICATION
from triggerkit.values import Decoder, decoder_for

#: Rows of the first chunk, and the most of any.
FIRST_ROWS = 200
MOST_ROWS = 5_000

#: Tables of more bytes are not counted: the planner's estimate tells about how many rows there are.
COUNTED_BYTES = 64 * 1024 * 1024

#: A chunk should take no longer than this to read, and ends with the row that brings it to so many
#: bytes.
TARGET_S = 0.25
TARGET_BYTES = 4 * 1024 * 1024

#: Looks at a table that is altered while it is read.
MOST_LOOKS = 10

_SIZE = """
SELECT greatest(pg_relation_size(%(table)s::regclass),
    (SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree(%(table)s::regclass)))::bigint
"""


class ChunkReader:
    """Reads one table by keyset pagination, ordered by a sort column and the primary key.

    Places are compared by the server, by the same operators and collations as ORDER BY. Within
    `bounds` there are only rows with a sort value. A chunk has at most `most_rows` rows, with the
    columns that `publication` holds.
    """

    def __init__(
        self,
        connection: psycopg.AsyncConnection,
        table: TableName,
        sort_by: str | None,
        bounds: Bounds = Bounds(),  # noqa: B008 - immutable
        most_rows: int = MOST_ROWS,
        publication: str = PUBLICATION,
    ) -> None:
        self._connection = connection
        self._publication = publication
        self._from: sql.Composable = sql.Identifier(*table)
        self._table = table
        self._sort_by = sort_by
        self._bounds = bounds
        self._most_rows = most_rows
        self._columns: list[str] = []
        self._types: dict[str, int] = {}
        #: Of types that are not built in; the stream has the same.
        self._decoders: dict[int, Decoder] = {}
        self._key: list[str] = []
        self._limit = min(FIRST_ROWS, most_rows)

    async def open(self) -> None:
        """Look up the table's columns.

        Raises:
            PreflightFailed: the table, its primary key or the sort column is missing, or policies
                hide rows from the role.
        """
        published = await published_columns(self._connection, self._publication, [self._table])
        self._types = published.get(self._table, {})
        self._columns = [*self._types]
        self._decoders = await type_decoders(self._connection, self._types.values())
        self._key = await key_of(self._connection, self._table)
        self._from = sql.Identifier(*self._table)
        if not await is_partitioned(self._connection, self._table):
            self._from = sql.SQL("ONLY ") + self._from
        if not self._columns or not self._key:
            raise PreflightFailed(f"table {self._table} does not exist, or has no primary key")
        missing = [name for name in self._key if name not in self._columns]
        if missing:
            raise PreflightFailed(
                f"the column {missing[0]!r} of the primary key of {self._table} is not published: "
                "it is generated, or left out by the publication's column list"
            )
        if self._sort_by is not None and self._sort_by not in self._columns:
            raise PreflightFailed(
                f"table {self._table} publishes no column {self._sort_by!r} to sort by; "
                f"it has {', '.join(self._columns)}"
            )
        await refuse_policies(self._connection, self._table)
        await find_operators(self._connection, self._table, self._order)

    @property
    def key(self) -> Sequence[str]:
        """The columns of the primary key, in order."""
        return self._key

    async def last_place(self, *, nulls: bool) -> Place | None:
        """Return the last place in the reading order now; None where there are no rows.

        With `nulls` it is that of the rows without a sort value, by their key.
        """
        order = self._key if nulls else self._order
        conditions = [self._is_null()] if nulls else self._within()
        query = sql.SQL("SELECT {} FROM {} {} ORDER BY {} LIMIT 1").format(
            self._list(order),
            self._from,
            self._where(conditions),
            self._list(order, sql.SQL(" DESC")),
        )
        rows = await self._texts(query)
        return rows[0] if rows else None

    async def estimate(self) -> int:
        """About how many rows are to be read; exact for a small table."""
        table = sql.Identifier(*self._table)
        conditions = [] if self._bounds.are_open else self._within()
        rows = sql.SQL("FROM {} {}").format(self._from, self._where([sql.SQL("true"), *conditions]))
        name = table.as_string(self._connection)
        cursor = await self._connection.execute(_SIZE, {"table": name})
        size = await cursor.fetchone()
        if size and size[0] > COUNTED_BYTES:
            query = sql.SQL("EXPLAIN (FORMAT JSON) SELECT {}").format(rows)
            cursor = await self._connection.execute(query)
            plan = await cursor.fetchone()
            return int(plan[0][0]["Plan"]["Plan Rows"]) if plan else 0
        cursor = await self._connection.execute(sql.SQL("SELECT count(*) {}").format(rows))
        row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def read(self, after: Place | None, last: Place | None, *, nulls: bool) -> Chunk:
        """Return the next chunk: places after `after` up to `last`, with `nulls` without a sort
        value.

        Nothing when `last` is None: there were no such rows. The rows have the columns that the
        table had then: where it is altered meanwhile, they are read again.
        """
        return await self._unaltered(lambda: self._read(after, last, nulls=nulls))

    async def read_again(self, keys: Sequence[Key]) -> Chunk:
        """Return the rows that there are of `keys`; `finished` if those are all.

        Guarantee: of a single key there is no more.
        """
        return await self._unaltered(lambda: self._read_again(keys))

    async def _unaltered(self, read: Callable[[], Awaitable[Chunk]]) -> Chunk:
        for _ in range(MOST_LOOKS):
            if await key_of(self._connection, self._table) != self._key:
                raise PreflightFailed(
                    f"the primary key of {self._table} was changed while it was read; cancel the "
                    "backfill and start another"
                )
            try:
                chunk = await read()
            except (psycopg.Error, ValueError):
                if not await self._is_altered():
                    raise
            else:
                if not await self._is_altered():
                    return chunk
            await self.open()
        raise PreflightFailed(
            f"table {self._table} was altered each time that it was read; resume the backfill"
        )

    async def _is_altered(self) -> bool:
        published = await published_columns(self._connection, self._publication, [self._table])
        types = published.get(self._table, {})
        # One that is not published any more is read on as it was.
        return bool(types) and [*types.items()] != [*self._types.items()]

    async def _read(self, after: Place | None, last: Place | None, *, nulls: bool) -> Chunk:
        order = self._key if nulls else self._order
        conditions = [self._is_null()] if nulls else self._within()
        if last is None:
            conditions.append(sql.SQL("false"))
        for operator, place in ((">", after), ("<=", last)):
            if place is not None:
                conditions.append(self._compare(order, operator, place))
        started = monotonic()
        chunk = await self._chunk(conditions, order, self._limit)
        self._adapt(len(chunk.rows), chunk.size_bytes, monotonic() - started)
        return chunk

    async def _read_again(self, keys: Sequence[Key]) -> Chunk:
        # A key has had other columns before.
        own = [key for key in keys if len(key) == len(self._key)]
        # One more than there can be: then there are no others.
        return await self._chunk([self._among(own)], self._key, len(own) + 1)

    async def _chunk(
        self, conditions: Sequence[sql.Composable], order: list[str], limit: int
    ) -> Chunk:
        query = sql.SQL("SELECT {} FROM {} {} ORDER BY {} LIMIT {}").format(
            self._list(self._columns),
            self._from,
            self._where(conditions),
            self._list(order),
            sql.Literal(limit),
        )
        async with self._connection.transaction(force_rollback=True):
            await self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor = await self._connection.execute("SELECT txid_current_snapshot()::text")
            snapshot_row = await cursor.fetchone()
            sighting = await sight_table(self._connection, self._publication, self._table)
            rows, size_bytes = await self._copied(query, order)
        assert snapshot_row is not None
        finished = len(rows) < limit and size_bytes < TARGET_BYTES
        return Chunk(Snapshot.parse(snapshot_row[0]), rows, finished, size_bytes, sighting)

    async def rows_of(self, keys: Sequence[Key]) -> list[Row]:
        """Return the rows that there are of `keys`, whose values are as Postgres prints them."""
        if not keys:
            return []
        query = sql.SQL("SELECT {} FROM {} WHERE {}").format(
            self._list(self._columns), self._from, self._among(keys)
        )
        return self._rows(await self._connection.execute(query), self._key)

    def key_record(self, key: Key) -> Record:
        """Return the columns of the primary key alone, as the message of a delete has them."""
        return {
            name: self._decoder(self._types[name])(value.encode())
            for name, value in zip(self._key, key, strict=True)
        }

    @property
    def _order(self) -> list[str]:
        if self._sort_by is None:
            return self._key
        return [self._sort_by, *(name for name in self._key if name != self._sort_by)]

    async def _copied(self, query: sql.Composed, order: list[str]) -> tuple[list[Row], int]:
        """Read rows one by one, until there are no more of them or they have the bytes of a chunk.

        The result of a query would be in memory as a whole before its size is known.
        """
        read = self._row_reader(order)
        rows, size_bytes = [], 0
        copying = sql.SQL("COPY ({}) TO STDOUT").format(query)
        try:
            async with self._connection.cursor() as cursor, cursor.copy(copying) as copy:
                async for line in copy:
                    if size_bytes >= TARGET_BYTES:
                        continue  # was on its way
                    size_bytes += len(line)
                    rows.append(read(values_of(bytes(line))))
                    if size_bytes >= TARGET_BYTES:
                        await self._connection.cancel_safe()
        except QueryCanceled:
            if size_bytes < TARGET_BYTES:
                raise
        return rows, size_bytes

    def _rows(self, cursor: psycopg.AsyncCursor, order: list[str]) -> list[Row]:
        result = cursor.pgresult
        assert result is not None
        read, columns = self._row_reader(order), range(len(self._columns))
        return [
            read([result.get_value(number, i) for i in columns]) for number in range(result.ntuples)
        ]

    def _row_reader(self, order: list[str]) -> Callable[[Sequence[bytes | None]], Row]:
        decoders = {name: self._decoder(self._types[name]) for name in self._columns}
        return row_reader(decoders, self._key, order)

    def _decoder(self, type_oid: int) -> Decoder:
        return self._decoders.get(type_oid) or decoder_for(type_oid)

    def _adapt(self, rows: int, size_bytes: int, seconds: float) -> None:
        if rows == 0:
            return
        by_time = self._limit * 2 if seconds < TARGET_S / 2 else rows * TARGET_S / seconds
        by_size = TARGET_BYTES * rows / max(size_bytes, 1)
        self._limit = max(1, min(self._most_rows, int(by_time), int(by_size)))

    async def _texts(self, query: sql.Composed) -> list[Place]:
        cursor = await self._connection.execute(query)
        result = cursor.pgresult
        assert result is not None
        return [
            [(result.get_value(row, i) or b"").decode() for i in range(result.nfields)]
            for row in range(result.ntuples)
        ]

    # Places and bounds are written as constants without a type, which take their columns': as
    # parameters they would have every % in a column's name taken for a placeholder.
    def _compare(self, order: list[str], operator: str, place: Place) -> sql.Composable:
        values = sql.SQL(", ").join(map(sql.Literal, place))
        return sql.SQL("({}) {} ({})").format(self._list(order), sql.SQL(operator), values)

    def _among(self, keys: Sequence[Key]) -> sql.Composable:
        if not keys:
            return sql.SQL("false")
        values = [sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, key))) for key in keys]
        return sql.SQL("({}) IN ({})").format(self._list(self._key), sql.SQL(", ").join(values))

    def _within(self) -> list[sql.Composable]:
        conditions = [self._null_test(sql.SQL("IS NOT NULL"))]
        if self._sort_by is not None:
            for operator, bound in ((">=", self._bounds.lower), ("<", self._bounds.until)):
                if bound is not None:
                    conditions.append(self._compare([self._sort_by], operator, [bound]))
        return conditions

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
