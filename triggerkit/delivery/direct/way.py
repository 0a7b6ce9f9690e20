"""The direct way: the runs of a batch are made in the transaction that moves the cursor past it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import psycopg
from psycopg.errors import LockNotAvailable
from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursors.cursor import AttemptOutcome, Cursor
from triggerkit.consumers.cursors.together import move_together
from triggerkit.consumers.parked.message import Head, ParkedMessage, Tried
from triggerkit.consumers.parked.store import ParkedStore
from triggerkit.delivery.direct.task_code import TaskCode
from triggerkit.delivery.push import Answer
from triggerkit.failpoints import reach
from triggerkit.project import Project
from triggerkit.runs.accept.insert import Inserted
from triggerkit.runs.accept.transaction import around
from triggerkit.runs.client import installation
from triggerkit.runs.keys import admit_statements, admitted
from triggerkit.runs.run import NewRun
from triggerkit.runs.session import BY_INDEX
from triggerkit.runs.transport.base import AsyncTransport
from triggerkit.runs.transport.open import open_async_transport
from triggerkit.settings import Settings
from triggerkit.state.faults import blames_values
from triggerkit.state.turn import Around, Rows, Statement, in_one_turn_async

#: Seconds that a stop waits for a transaction that is under way.
END_S = 5.0


class NotMade(Exception):
    """The runs were not made, and the cursor was not moved; `answer` says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.error)
        self.answer = answer


class DirectWay:
    """Makes the runs of all consumers that get their messages directly. What it needs is opened
    when the first of them starts."""

    def __init__(self, settings: Settings, project: Project, states: AsyncConnectionPool) -> None:
        self._settings = settings
        self._states = states
        self._transport: AsyncTransport | None = None
        self.code = TaskCode(project)

    async def require(self, task: str) -> None:
        """See that runs of `task` can be made.

        Raises:
            ConfigurationError: there is no such task, or the tasks cannot be loaded.
        """
        if self._transport is None:
            namespace = await installation(self._settings)
            self._transport = open_async_transport(self._settings, namespace)
        await self.code.require(task)

    async def move(
        self,
        consumer: Consumer,
        cursor: Cursor,
        outcome: AttemptOutcome,
        runs: Sequence[NewRun],
        parked: Sequence[ParkedMessage],
    ) -> Cursor:
        """Make `runs` and move the cursor past their messages, both or none; push the runs' ids.

        Raises:
            CursorMoved: the cursor is another by now; nothing was done.
            NotMade: the runs cannot be made now, or as they are.
        """
        moving = asyncio.create_task(
            self._move(consumer, cursor, outcome, around(runs), parked), name="move"
        )
        try:
            return await asyncio.shield(moving)
        except asyncio.CancelledError:
            # What was sent to Postgres in one turn is waited for: its end is near, and known then.
            await asyncio.wait({moving}, timeout=END_S)
            if not moving.cancel() and not moving.cancelled():
                # Whatever it was, nobody asks any more.
                moving.exception()
            raise

    async def _move(
        self,
        consumer: Consumer,
        cursor: Cursor,
        outcome: AttemptOutcome,
        made: Around,
        parked: Sequence[ParkedMessage],
    ) -> Cursor:
        try:
            cursor, rows = await move_together(
                self._states, consumer, cursor, outcome, made, parked
            )
        except psycopg.Error as error:
            raise _not_made(error) from error
        await self._push(rows)
        return cursor

    async def finish(
        self, consumer: Consumer, head: Head, tried: Tried, runs: Sequence[NewRun]
    ) -> bool:
        """Make the run of a parked message and be done with the message, both or none. Returns
        whether its key still has one in the way.

        Raises:
            NotMade: the run cannot be made now, or as it is.
        """
        parked = ParkedStore(self._states)
        try:
            recorded = await parked.record_retry(consumer.id, head, tried, around(runs))
        except psycopg.Error as error:
            raise _not_made(error) from error
        if recorded.rows:
            await self._push(recorded.rows)
        return recorded.has_more

    async def close(self) -> None:
        """Close what was opened, at once."""
        await self.code.end()
        if self._transport is not None:
            await self._transport.close()

    async def _push(self, rows: Sequence[Rows]) -> None:
        """Push the ids of what was made; those that are lost are pushed again by the keeper."""
        inserted = Inserted()
        inserted.add(*rows)
        reach("run-inserted")
        if inserted.gates:
            async with self._states.connection() as connection:
                by_index: Statement = (f"SELECT {BY_INDEX}", None)
                statements = [by_index, *admit_statements(inserted.gates)]
                *_, let_through = await in_one_turn_async(connection, statements)
                inserted.ready += admitted(let_through)
        assert self._transport is not None
        await self._transport.push(inserted.ready)
        reach("run-pushed")


def _not_made(error: psycopg.Error) -> Exception:
    """Return what a webhook route would answer; `error` itself when it tells nothing of the
    runs."""
    if isinstance(error, LockNotAvailable):
        held = "another transaction holds a key of the runs; end it soon after it triggers"
        return NotMade(Answer("endpoint_failed", 503, held, is_suspect=True))
    if blames_values(error) and not isinstance(error, psycopg.IntegrityError):
        return NotMade(Answer("content_refused", 422, "contains text that cannot be stored"))
    return error
