"""What a person does to backfills, and sees of them, for the tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from tests.integration.pipeline import declare, execute
from tests.receiver import Receiver
from triggerkit.consumers.backfill.store import BackfillProgress, BackfillStore
from triggerkit.consumers.definition import rows
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

TABLE = """
CREATE TABLE items (id bigint PRIMARY KEY, version int NOT NULL DEFAULT 0, name text);
ALTER TABLE items REPLICA IDENTITY FULL
"""


class Operator:
    """What a person does to backfills."""

    def __init__(
        self, settings: Settings, source: psycopg.AsyncConnection, state: psycopg.AsyncConnection
    ) -> None:
        self.settings = settings
        self.source = source
        self.state = state
        self.store = BackfillStore(state, "test")

    async def start(self, consumer: str = "test", **options: Any) -> int:
        """Start one and return its id."""
        started = await self.store.start(self.source, consumer, **options)
        return started[0].id

    async def one(self, backfill_id: int) -> BackfillProgress:
        """How far it is."""
        return next(b for b in await self.store.list(all_=True) if b.id == backfill_id)

    async def span(self, backfill_id: int) -> tuple[Any, ...]:
        """From which position to which `when_changed` is off."""
        cursor = await self.state.execute(
            "SELECT first_position, last_position FROM triggerkit.backfills WHERE id = %s",
            [backfill_id],
        )
        row = await cursor.fetchone()
        assert row is not None
        return row

    async def logged(self, column: str) -> list[int]:
        """A column of the rows that were read, in the log's order."""
        cursor = await self.state.execute(
            "SELECT (record::jsonb ->> %s)::int FROM triggerkit.events WHERE action = 'read' "
            "ORDER BY position",
            [column],
        )
        return [value for (value,) in await cursor.fetchall()]

    async def until(self, condition: Callable[[], Awaitable[bool]], timeout_s: float = 20) -> None:
        """Wait until the state is so."""
        async with asyncio.timeout(timeout_s):
            while True:
                if await condition():
                    return
                await asyncio.sleep(0.02)

    async def until_state(self, backfill_id: int, state: str) -> BackfillProgress:
        """Wait until it is in `state`."""

        async def reached() -> bool:
            return (await self.one(backfill_id)).state == state

        await self.until(reached)
        return await self.one(backfill_id)

    async def until_read(self, backfill_id: int, count: int) -> None:
        """Wait until so many rows are read."""

        async def reached() -> bool:
            return (await self.one(backfill_id)).rows_read >= count

        await self.until(reached)

    async def until_closed(self, backfill_id: int) -> None:
        """Wait until its reading has ended and its span is closed."""

        async def closed() -> bool:
            return (await self.span(backfill_id))[1] is not None

        await self.until(closed)


#: Runs a scenario with an operator and a receiver.
Scene = Callable[[Callable[[Operator, Receiver], Awaitable[None]]], None]


@asynccontextmanager
async def operating(settings: Settings) -> AsyncIterator[Operator]:
    async with (
        await connect(settings.source_dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        yield Operator(settings, source, state)


async def prepared(
    operator: Operator, receiver: Receiver, count: int, table: str = TABLE, **options: Any
) -> None:
    """Make a table of so many rows, and a consumer that starts at the end."""
    await execute(
        operator.settings,
        table,
        f"INSERT INTO items (id) SELECT i FROM generate_series(1, {count}) i",
    )
    await declare(operator.settings, receiver, rows("items", start="end", **options))


async def filled(operator: Operator, receiver: Receiver, *statements: str) -> None:
    """Make a table by the statements, and a consumer that reads it from the beginning."""
    await execute(operator.settings, *statements)
    await declare(operator.settings, receiver, rows("items", batch_size=100))
