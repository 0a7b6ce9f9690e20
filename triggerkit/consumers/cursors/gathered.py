"""Store many cursors by one statement: what lanes ask for while that of others is stored.

A statement with its commit costs as much for one cursor as for twenty. An idle lane's goes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from psycopg.errors import DeadlockDetected, ForeignKeyViolation
from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.cursors.cursor import AttemptOutcome, Cursor

#: Statements under way; what comes then waits for one of them.
AT_ONCE = 2

#: Cursors of one statement.
MOST = 100

#: Seconds that a stop waits for a statement that is under way.
END_S = 5.0

T = TypeVar("T")

#: Which rows are still as they were, and locked by nobody: others are stored one by one, and wait.
_LOCKED = """
locked AS MATERIALIZED (
    SELECT g.* FROM triggerkit.cursors k
    JOIN given g ON k.consumer_id = g.consumer_id AND k.partition = g.partition
    WHERE k.xmin = g.version::xid FOR NO KEY UPDATE OF k SKIP LOCKED)
"""

_BEGIN = f"""
WITH given AS (
    SELECT * FROM unnest(%s::int[], %s::int[], %s::text[], %s::bigint[], %s::text[], %s::bigint[],
        %s::int[], %s::text[])
    AS g (consumer_id, partition, version, position, batch_id, batch_last, attempt, settled)),
{_LOCKED}
UPDATE triggerkit.cursors k SET position = l.position, batch_id = l.batch_id,
    batch_last = l.batch_last, attempt = l.attempt, settled = l.settled::bigint[]
FROM locked l WHERE k.consumer_id = l.consumer_id AND k.partition = l.partition
RETURNING k.consumer_id, k.partition, k.xmin::text
"""  # noqa: S608 - of constants

_RECORD = f"""
WITH given AS (
    SELECT * FROM unnest(%s::int[], %s::int[], %s::text[], %s::bigint[], %s::bool[], %s::bigint[],
        %s::bigint[], %s::text[], %s::int[], %s::int[], %s::timestamptz[], %s::int[], %s::text[])
    AS g (consumer_id, partition, version, position, done, first, last, batch_id, attempt, messages,
        sent_at, status, error)),
{_LOCKED},
moved AS (
    UPDATE triggerkit.cursors k SET position = l.position,
        batch_id = CASE WHEN l.done THEN NULL ELSE k.batch_id END,
        batch_last = CASE WHEN l.done THEN NULL ELSE k.batch_last END,
        attempt = CASE WHEN l.done THEN 0 ELSE k.attempt END,
        settled = CASE WHEN l.done THEN '{{}}' ELSE k.settled END
    FROM locked l WHERE k.consumer_id = l.consumer_id AND k.partition = l.partition
    RETURNING k.consumer_id, k.partition, k.xmin::text AS version),
noted AS (
    INSERT INTO triggerkit.deliveries (consumer_id, partition, first_position, last_position,
        batch_id, attempt, messages, sent_at, answered_at, status, error)
    SELECT g.consumer_id, g.partition, g.first, g.last, g.batch_id, g.attempt, g.messages,
        g.sent_at, clock_timestamp(), g.status, g.error
    FROM given g JOIN moved USING (consumer_id, partition))
SELECT consumer_id, partition, version FROM moved
"""  # noqa: S608 - of constants


class Gathered(Generic[T]):
    """Does `do` for several who ask at the same time."""

    def __init__(self, do: Callable[[list[T]], Awaitable[list[str | None]]]) -> None:
        self._do = do
        self._waiting: list[tuple[T, asyncio.Future[str | None]]] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def ask(self, one: T) -> str | None:
        """Return what `do` returns for `one`. What is under way is waited for when this is
        canceled: whoever comes next must not be surprised by it."""
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((one, answer))
        self._start()
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            still = [asked for asked in self._waiting if asked[1] is not answer]
            if len(still) == len(self._waiting):
                await asyncio.wait({answer}, timeout=END_S)
            self._waiting = still
            if not answer.cancel() and not answer.cancelled():
                # Whatever it was, nobody asks any more.
                answer.exception()
            raise

    def _start(self) -> None:
        if self._waiting and len(self._under_way) < AT_ONCE:
            asked, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            task = asyncio.create_task(self._answer(asked), name="store cursors")
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._start()

    async def _answer(self, asked: Sequence[tuple[T, asyncio.Future[str | None]]]) -> None:
        try:
            found = await self._do([one for one, _ in asked])
        except BaseException as error:
            for _, answer in asked:
                if answer.done():
                    continue
                if isinstance(error, Exception):
                    answer.set_exception(error)
                else:
                    answer.cancel()
            if not isinstance(error, Exception):
                raise
            return
        for (_, answer), version in zip(asked, found, strict=True):
            if not answer.done():
                answer.set_result(version)


class GatheredCursors:
    """The cursors of one process, stored together. What is not stored so, since a row is another by
    now or held by somebody, is answered by None."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool
        self._begins: Gathered[Cursor] = Gathered(self._begin)
        self._records: Gathered[tuple[Cursor, AttemptOutcome]] = Gathered(self._record)

    async def begin(self, cursor: Cursor) -> str | None:
        """Store `cursor` with the attempt that is sent next; the version it has then."""
        return await self._begins.ask(cursor)

    async def record(self, cursor: Cursor, outcome: AttemptOutcome) -> str | None:
        """Note the outcome of an attempt and move `cursor`; the version it has then."""
        return await self._records.ask((cursor, outcome))

    async def _begin(self, cursors: list[Cursor]) -> list[str | None]:
        rows = [
            (
                *_row_of(cursor),
                cursor.position,
                cursor.batch_id,
                cursor.batch_last,
                cursor.attempt,
                f"{{{','.join(map(str, cursor.settled))}}}",
            )
            for cursor in cursors
        ]
        return await self._stored(_BEGIN, rows)

    async def _record(self, asked: list[tuple[Cursor, AttemptOutcome]]) -> list[str | None]:
        rows = [
            (
                *_row_of(cursor),
                cursor.position if outcome.move_to is None else outcome.move_to,
                outcome.move_to is not None,
                outcome.first,
                outcome.last,
                outcome.batch_id,
                outcome.attempt,
                outcome.messages,
                outcome.sent_at,
                outcome.status,
                outcome.error,
            )
            for cursor, outcome in asked
        ]
        return await self._stored(_RECORD, rows)

    async def _stored(self, statement: str, rows: list[tuple[Any, ...]]) -> list[str | None]:
        columns = [list(column) for column in zip(*rows, strict=True)]
        try:
            async with self._pool.connection() as connection:
                cursor = await connection.execute(statement, columns)
                found = {(row[0], row[1]): str(row[2]) for row in await cursor.fetchall()}
        except (ForeignKeyViolation, DeadlockDetected):
            # One of the consumers was deleted at this moment: which, tells each by itself.
            return [None] * len(rows)
        return [found.get((row[0], row[1])) for row in rows]


def _row_of(cursor: Cursor) -> tuple[int, int, str]:
    return cursor.consumer_id, cursor.partition, cursor.version
