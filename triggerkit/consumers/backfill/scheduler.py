"""Schedule the backfills of a database, and tell from when to when `when_changed` is off.

A row that an unrelated update touches between its reading and its chunk's place in the log is
dropped from the chunk: that update is then its only bearer, and `when_changed` must let it pass.
Such updates lie after the position where recording began (`first_position`) and before the place
of the last chunk that was stored. So the span closes (`last_position`) where reading ends, however
it ends:

- complete: with the last chunk, in the transaction that stores it;
- paused, canceled, failed: at the log's end, once this process reads no more for it. A chunk in
  flight is stored first, so no row is dropped after that place. What the command did is not the
  place: at that moment a chunk may be on its way. While it is paused the filter works again: a
  row not read yet is going to be read as it is then, and one that was read has its bearer.
- the process was killed: the next one finds the span open, and the state tells whether to go on
  or to close it. The chunk that was in flight counts as never read.

Resumed, the span opens again from its first position on, over the pause too: a consumer that is
behind, or rewound, still has to find the earlier bearers, and a few updates too many do no harm.
A backfill that waits for its consumer keeps its span open.
"""

from __future__ import annotations

from collections.abc import Iterable

from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

from triggerkit.change import RowChange, Transaction
from triggerkit.consumers.backfill.opened import OpenBackfill
from triggerkit.consumers.backfill.table import Survivors, TableBackfill
from triggerkit.consumers.backfill.throttle import Outstanding
from triggerkit.state.channels import notify_consumers

#: Backfills that are read at once; the others wait, in the order in which they were started.
MOST_AT_ONCE = 4

#: Seconds between two looks whether consumers have followed, while a backfill waits for one.
HELD_BACK_CHECK_S = 1.0

_OPEN = """
SELECT b.id, b.consumer_id, c.database_id, b.schema_name, b.table_name, b.sort_column,
    b.lower_bound, b.upper_bound, b.cursor, b.rows_per_s
FROM triggerkit.backfills b JOIN triggerkit.consumers c ON c.id = b.consumer_id
WHERE b.state = 'active' AND c.database_id = %s ORDER BY b.id
"""

#: Closes the spans of those that ended without completing and are not being read.
_CLOSE_SPANS = """
UPDATE triggerkit.backfills b SET last_position = d.next_position - 1
FROM triggerkit.consumers c JOIN triggerkit.databases d ON d.id = c.database_id
WHERE c.id = b.consumer_id AND d.id = %s AND b.state IN ('paused', 'canceled', 'failed')
  AND b.first_position IS NOT NULL AND b.last_position IS NULL AND NOT b.id = ANY (%s)
"""

_FAIL = """
UPDATE triggerkit.backfills SET error = %s,
    state = CASE WHEN state = 'active' THEN 'failed' ELSE state END
WHERE id = %s
"""


class Backfills:
    """The open backfills of one database, fed by its stream.

    All that happens follows from the state at a `look`: which are started, which are told to stop,
    whose span is closed. The stream looks at its start, and whenever the state was changed.
    """

    def __init__(
        self, source_dsn: str, pool: AsyncConnectionPool, database_id: int, publication: str
    ) -> None:
        self._publication = publication
        self._source_dsn = source_dsn
        self._pool = pool
        self._database_id = database_id
        self._running: dict[int, TableBackfill] = {}
        self._outstanding: dict[int, Outstanding] = {}
        #: Seconds after which to look again unasked; None when only a change can bring news.
        self.look_again_s: float | None = None

    async def look(self) -> list[TableBackfill]:
        """Begin recording touched keys for those whose turn it is, and return them to be run."""
        # One that ends meanwhile was read from the state before its last chunk was stored.
        before = set(self._running)
        found = await self._active()
        active = {b.id for b in found}
        for backfill_id, running in self._running.items():
            running.go_on(backfill_id in active)
        kept = active | self._running.keys()
        self._outstanding = {i: o for i, o in self._outstanding.items() if i in kept}
        await self._close_spans()
        self.look_again_s = None
        new = []
        for backfill in found:
            if backfill.id in before or backfill.id in self._running:
                continue
            if len(self._running) >= MOST_AT_ONCE:
                break
            outstanding = self._outstanding.get(backfill.id)
            if outstanding is None:
                outstanding = Outstanding(self._pool, backfill.id)
                self._outstanding[backfill.id] = outstanding
            if await outstanding.holds_back():
                self.look_again_s = HELD_BACK_CHECK_S
                continue
            reading = TableBackfill(
                backfill, self._source_dsn, self._pool, outstanding, self._publication
            )
            self._running[backfill.id] = reading
            new.append(reading)
        return new

    async def fail(self, backfill: TableBackfill, error: str) -> None:
        """Show why the backfill cannot go on; it stops until it is resumed."""
        async with self._pool.connection() as connection:
            await connection.execute(_FAIL, [error, backfill.backfill.id])

    def close(self, backfill: TableBackfill) -> None:
        """Stop recording for a backfill that is not being read any more."""
        self._running.pop(backfill.backfill.id, None)

    async def wake(self) -> None:
        """Have the stream look again: a place is free, or a span is to be closed."""
        async with self._pool.connection() as connection:
            await notify_consumers(connection)

    def observe(self, xid: int, changes: Iterable[RowChange]) -> None:
        """Record which keys a transaction touched; called before the transaction is appended."""
        if not self._running:
            return
        changes = list(changes)
        for running in self._running.values():
            schema, name = running.backfill.table
            running.touched.record(
                xid, (c for c in changes if c.table == name and c.schema == schema)
            )

    def at_marker(self, content: bytes, transaction: Transaction) -> Survivors | None:
        """Return what the marker with `content` puts into the log at its place, if anything.

        Everybody may write into the WAL under our prefix: what is no marker of ours is passed over.
        """
        backfill_id, _, marker = content.partition(b":")
        for running in self._running.values():
            if backfill_id == str(running.backfill.id).encode():
                return running.survivors(marker.decode(errors="replace"), transaction)
        return None

    async def _active(self) -> list[OpenBackfill]:
        async with (
            self._pool.connection() as connection,
            connection.cursor(row_factory=class_row(OpenBackfill)) as cursor,
        ):
            await cursor.execute(_OPEN, [self._database_id])
            return await cursor.fetchall()

    async def _close_spans(self) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(_CLOSE_SPANS, [self._database_id, list(self._running)])
