"""A backfill brings the large values that changes beside it leave out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from tests.integration.consumers.backfill.operator import Operator, Scene
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.backfill.left_out import head_of
from triggerkit.consumers.backfill.opened import OpenBackfill
from triggerkit.consumers.definition import rows

BODY_CHARS = 3_200

#: A value that is stored apart, and left out by the WAL where an update does not change it.
TABLE = """
CREATE TABLE items (id int PRIMARY KEY, version int NOT NULL DEFAULT 0, at timestamptz, body text);
ALTER TABLE items ALTER body SET STORAGE EXTERNAL
"""


async def prepared(operator: Operator, receiver: Receiver, count: int, **options: Any) -> None:
    """Make a table of so many rows with a large value, and a consumer that starts at the end."""
    await execute(
        operator.settings,
        TABLE,
        "INSERT INTO items SELECT i, 0, timestamptz '2026-01-01' + i * interval '1 s', "
        f"repeat(md5(i::text), 100) FROM generate_series(1, {count}) i",
    )
    await declare(operator.settings, receiver, rows("items", start="end", **options))


def last_messages(receiver: Receiver) -> dict[int, dict[str, Any]]:
    """The last message of each row by its key, deleted ones left out."""
    last = {m["record"]["id"]: m for m in receiver.messages}
    return {key: m for key, m in last.items() if m["action"] != "delete"}


def lacking(receiver: Receiver) -> list[int]:
    """The rows whose value nobody brought, or whose version is not the last."""
    return sorted(
        key
        for key, message in last_messages(receiver).items()
        if len(message["record"].get("body", "")) != BODY_CHARS
    )


def test_a_row_that_a_change_moves_out_of_the_reading_is_read_again(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 600, sort_by="at", batch_size=100)
        backfill = await operator.start(rows_per_s=200)
        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill, 1)
            await operator.source.execute(
                "UPDATE public.items SET version = 1, at = now() WHERE id IN (500, 599)"
            )
            await operator.until_state(backfill, "completed")
            await receiver.until(lambda: len(last_messages(receiver)) == 600)
            await receiver.until(lambda: not lacking(receiver))
        last = last_messages(receiver)
        assert (last[500]["record"]["version"], last[599]["record"]["version"]) == (1, 1)
        assert len(receiver.messages) == 602, "each of the two came as an update and was read"

    scene(scenario)


def test_a_row_whose_key_goes_behind_the_reading_is_read_again(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 600, batch_size=100)
        backfill = await operator.start(rows_per_s=200)
        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill, 200)
            await operator.source.execute("UPDATE public.items SET id = -5 WHERE id = 590")
            await operator.until_state(backfill, "completed")
            await receiver.until(lambda: -5 in last_messages(receiver))
            await receiver.until(lambda: not lacking(receiver))

    scene(scenario)


def test_a_row_that_is_changed_before_it_is_read_is_read_once(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 600, batch_size=100)
        backfill = await operator.start(rows_per_s=200)
        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill, 1)
            await operator.source.execute("UPDATE public.items SET version = 1 WHERE id > 590")
            await operator.until_state(backfill, "completed")
            await receiver.until(lambda: len(last_messages(receiver)) == 600)
            await receiver.until(lambda: not lacking(receiver))
        assert len(await operator.logged("id")) == 600

    scene(scenario)


def test_rows_are_read_again_after_a_restart(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 600, sort_by="at", batch_size=100)
        backfill = await operator.start(rows_per_s=200)
        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill, 1)
            await operator.source.execute(
                "UPDATE public.items SET version = 1, at = now() WHERE id IN (500, 599)"
            )
            await receiver.until(lambda: 599 in last_messages(receiver))
        async with streaming(operator.settings, receiver):
            await operator.until_state(backfill, "completed")
            await receiver.until(lambda: len(last_messages(receiver)) == 600)
            await receiver.until(lambda: not lacking(receiver))

    scene(scenario)


def test_a_row_that_changes_all_the_time_comes_whole_and_holds_nobody_up(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 300, sort_by="at", batch_size=100)
        backfill = await operator.start(rows_per_s=200)

        async def change() -> None:
            while True:
                await operator.source.execute(
                    "UPDATE public.items SET version = version + 1, at = now() WHERE id = 299"
                )
                await asyncio.sleep(0.005)

        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill, 1)
            changing = asyncio.create_task(change())
            await asyncio.wait(
                [asyncio.create_task(operator.until_state(backfill, "completed")), changing],
                return_when=asyncio.FIRST_COMPLETED,
            )
            changing.cancel()
            await receiver.until(lambda: len(last_messages(receiver)) == 300)
            await receiver.until(lambda: not lacking(receiver))
        versions = [m["record"]["version"] for m in receiver.messages if m["record"]["id"] == 299]
        assert versions == sorted(versions), "an older version after a newer one"

    scene(scenario)


def test_a_row_that_changes_while_it_is_looked_for_is_read_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 300, sort_by="at", batch_size=100)
        change = "UPDATE public.items SET version = version + 1, at = now() WHERE id = 299"

        async def head_before_a_change(pool: AsyncConnectionPool, backfill: OpenBackfill) -> int:
            head = await head_of(pool, backfill)
            await operator.source.execute(change)
            while await head_of(pool, backfill) == head:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.005)
            return head

        monkeypatch.setattr("triggerkit.consumers.backfill.table.head_of", head_before_a_change)
        backfill = await operator.start(rows_per_s=200)
        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill, 1)
            await operator.source.execute(change)
            await operator.until_state(backfill, "completed")
            await receiver.until(lambda: len(last_messages(receiver)) == 300)
            await receiver.until(lambda: not lacking(receiver))

    scene(scenario)
