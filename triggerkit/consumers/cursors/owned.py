"""Cursors of the partitions that one process has of a log that several deliver from.

A partition is of the process that claimed it last. Whoever claims it writes into each cursor that
it begins with: what another one knows of them is of an earlier version then, by which it moves
none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from secrets import token_hex
from typing import Final

from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursors.cursor import Cursor
from triggerkit.consumers.cursors.store import CursorStore, Elsewhere
from triggerkit.consumers.parked.message import Head
from triggerkit.consumers.parked.store import DUE, ParkedStore
from triggerkit.consumers.retention import CursorProgress

_CLAIM: Final = """
INSERT INTO triggerkit.log_owners (database_id, partition, owner)
SELECT %s, p, %s FROM unnest(%s::int[]) p ORDER BY p
ON CONFLICT (database_id, partition) DO UPDATE SET owner = excluded.owner, claimed_at = now()
"""

#: Nobody can claim a partition between the look at its owner and the write into its cursors.
_BEGIN: Final = """
WITH mine AS MATERIALIZED (
    SELECT partition FROM triggerkit.log_owners
    WHERE database_id = %(database)s AND owner = %(owner)s ORDER BY partition FOR SHARE),
begun AS (
    UPDATE triggerkit.cursors k SET owner = %(owner)s
    FROM mine m, triggerkit.consumers c
    WHERE k.consumer_id = %(consumer)s AND k.partition = m.partition
      AND c.id = k.consumer_id AND c.replay_epoch = %(epoch)s
    RETURNING k.consumer_id, k.partition, k.position, k.batch_id, k.batch_last, k.attempt,
        k.settled, k.xmin::text AS version, k.position AS stored_position, k.owner)
SELECT * FROM begun ORDER BY partition
"""

_OTHERS: Final = """
SELECT partition, position FROM triggerkit.cursors
WHERE consumer_id = %s AND NOT partition = ANY (%s)
"""

_SAVE: Final = """
WITH p AS (
    SELECT * FROM unnest(%s::int[], %s::int[], %s::int[], %s::bigint[])
        AS p (consumer_id, epoch, partition, position)
), locked AS MATERIALIZED (
    SELECT p.* FROM triggerkit.cursors k JOIN p USING (consumer_id, partition)
    WHERE k.position < p.position AND k.owner = %s
    ORDER BY k.consumer_id, k.partition FOR NO KEY UPDATE OF k
)
UPDATE triggerkit.cursors k SET position = p.position
FROM locked p, triggerkit.consumers c
WHERE k.consumer_id = p.consumer_id AND k.partition = p.partition AND c.id = p.consumer_id
  AND c.replay_epoch = p.epoch AND k.batch_id IS NULL AND k.position < p.position
  AND k.owner = %s
"""


#: As the heads of all partitions are found, for some of them.
_DUE: Final = DUE.replace("ORDER BY due_at", "AND partition = ANY (%s) ORDER BY due_at")


class OwnedCursors(CursorStore):
    """The cursors of some partitions, from their claim on until another process claims them."""

    def __init__(
        self, pool: AsyncConnectionPool, database_id: int, partitions: Collection[int]
    ) -> None:
        super().__init__(pool, database_id)
        self._states = pool
        self._of_database = database_id
        self.partitions = sorted(partitions)
        #: Names this claim: nobody else has it, nor has this process at another time.
        self.owner = token_hex(12)
        self.parked = OwnedParked(pool, self.partitions)

    async def claim(self) -> None:
        """Take the partitions, whoever has them."""
        async with self._states.connection() as connection:
            await connection.execute(_CLAIM, [self._of_database, self.owner, self.partitions])

    async def load(self, consumer: Consumer) -> list[Cursor]:
        """Return the consumer's cursors of these partitions, which nobody else moves from now on.

        There are none when another process claimed all of them, or as `CursorStore.load` says.
        """
        wanted = {
            "database": self._of_database,
            "owner": self.owner,
            "consumer": consumer.id,
            "epoch": consumer.replay_epoch,
        }
        async with (
            self._states.connection() as connection,
            connection.cursor(row_factory=class_row(Cursor)) as cursor,
        ):
            await cursor.execute(_BEGIN, wanted)
            return await cursor.fetchall()

    def elsewhere(self, consumer_id: int) -> Elsewhere | None:
        """Return what tells how far a consumer is in the partitions of other processes."""
        return partial(self._elsewhere, consumer_id)

    async def _elsewhere(self, consumer_id: int) -> dict[int, int]:
        async with self._states.connection() as connection:
            cursor = await connection.execute(_OTHERS, [consumer_id, self.partitions])
            return dict(await cursor.fetchall())

    async def save(self, progress: Sequence[CursorProgress]) -> None:
        """Store how far consumers are that had nothing to store."""
        columns = [list(column) for column in zip(*progress, strict=True)]
        if not columns:
            return
        async with self._states.connection() as connection:
            await connection.execute(_SAVE, [*columns, self.owner, self.owner])


class OwnedParked(ParkedStore):
    """The parked messages of some partitions: those of others are tried by other processes."""

    def __init__(self, pool: AsyncConnectionPool, partitions: Sequence[int]) -> None:
        super().__init__(pool)
        self._states = pool
        self._partitions = list(partitions)

    async def due(self, consumer_id: int, limit: int, but: Collection[str]) -> list[Head]:
        """Return as `ParkedStore.due` does, of these partitions."""
        async with (
            self._states.connection() as connection,
            connection.cursor(row_factory=class_row(Head)) as cursor,
        ):
            await cursor.execute(_DUE, [consumer_id, list(but), self._partitions, limit])
            return await cursor.fetchall()
