"""Who lost a partition to another process moves none of its cursors, and makes nothing of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import psycopg
import pytest

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursors.cursor import AttemptOutcome, Cursor, CursorMoved
from triggerkit.consumers.cursors.owned import OwnedCursors
from triggerkit.consumers.cursors.together import move_together
from triggerkit.consumers.retention import CursorProgress
from triggerkit.state.connect import pool
from triggerkit.state.turn import Around

Move = Callable[[OwnedCursors, Consumer, Cursor], Awaitable[object]]


def outcome(cursor: Cursor) -> AttemptOutcome:
    """A batch that was delivered."""
    return AttemptOutcome(6, 7, "msg_1", 1, 2, datetime.now(UTC), 200, None, move_to=7)


async def begin(store: OwnedCursors, consumer: Consumer, cursor: Cursor) -> object:
    return await store.begin(consumer, cursor, batch_id="msg_1", batch_last=7, settled=[])


async def rest(store: OwnedCursors, consumer: Consumer, cursor: Cursor) -> object:
    return await store.rest(consumer, cursor)


async def record(store: OwnedCursors, consumer: Consumer, cursor: Cursor) -> object:
    return await store.record_attempt(consumer, cursor, outcome(cursor))


async def make_runs(store: OwnedCursors, consumer: Consumer, cursor: Cursor) -> object:
    noted = ("UPDATE triggerkit.consumers SET last_error = 'made' RETURNING id", None)
    around = Around((), (noted,))
    return await move_together(store._states, consumer, cursor, outcome(cursor), around)


@pytest.fixture
def consumer_id(database_url: str, database_id: int) -> int:
    """A consumer with a cursor at position 5 of each partition."""
    definition = '{"kind": "changes", "tables": ["public.items"], "name": "items", "path": "/push"}'
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE triggerkit.databases SET system_identifier = '1'")
        row = connection.execute(
            "INSERT INTO triggerkit.consumers (name, database_id, kind, definition) "
            "VALUES ('items', %s, 'changes', %s) RETURNING id",
            [database_id, definition],
        ).fetchone()
        assert row is not None
        connection.execute(
            "INSERT INTO triggerkit.cursors (consumer_id, partition, position) "
            "SELECT %s, p, 5 FROM generate_series(0, 7) p",
            row,
        )
    return int(row[0])


@pytest.mark.parametrize("move", [begin, rest, record, make_runs])
def test_a_cursor_is_moved_by_no_one_but_its_last_owner(
    database_url: str, database_id: int, consumer_id: int, move: Move
) -> None:
    async def scenario() -> None:
        async with pool(database_url, "test", size=3) as states:
            old = OwnedCursors(states, database_id, [1, 2])
            await old.claim()
            [consumer] = await old.consumers()
            _, lost = await old.load(consumer)
            new = OwnedCursors(states, database_id, [2, 3])
            await new.claim()
            [own, _] = await new.load(consumer)
            assert own.partition == lost.partition == 2
            with pytest.raises(CursorMoved):
                await move(old, consumer, lost.passed(6))
            await old.save([CursorProgress(consumer_id, 0, 2, 6)])
            # Nor does it get the cursor by asking again.
            assert [cursor.partition for cursor in await old.load(consumer)] == [1]
            assert [c.position for c in await new.load(consumer)] == [5, 5]
            with psycopg.connect(database_url) as connection:
                made = connection.execute("SELECT last_error FROM triggerkit.consumers").fetchone()
                assert made == (None,)
            [own, _] = await new.load(consumer)
            await move(new, consumer, own.passed(6))

    asyncio.run(scenario())


def test_what_was_passed_over_is_stored_by_its_owner(
    database_url: str, database_id: int, consumer_id: int
) -> None:
    async def scenario() -> None:
        async with pool(database_url, "test", size=2) as states:
            store = OwnedCursors(states, database_id, [4])
            await store.claim()
            [consumer] = await store.consumers()
            [cursor] = await store.load(consumer)
            await store.save([CursorProgress(consumer_id, 0, 4, 9)])
            # Its own move is no other's.
            await store.rest(consumer, cursor.passed(9))
            elsewhere = store.elsewhere(consumer_id)
            assert elsewhere is not None
            assert await elsewhere() == dict.fromkeys([0, 1, 2, 3, 5, 6, 7], 5)

    asyncio.run(scenario())
