"""A lost slot: it is not replaced silently, its gap is shown, and reading the tables closes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
import pytest

from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.backfill.store import BackfillStore
from triggerkit.consumers.declare import slot as slot_module
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.errors import PreflightFailed
from triggerkit.replication.capture import Capture
from triggerkit.replication.slot.replication_slot import drop_slot, ensure_slot, slot_name_for
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

TABLE = (
    "CREATE TABLE items (id bigint PRIMARY KEY, name text); ALTER TABLE items REPLICA IDENTITY FULL"
)

#: A query whose answer is a gap, or nothing.
GAP = """
SELECT (SELECT cause FROM triggerkit.gaps WHERE closed_at IS NULL) FROM triggerkit.consumers
"""


async def gap(settings: Settings) -> str | None:
    async with await connect(settings.state_dsn, "test") as state:
        row = await (await state.execute(GAP)).fetchone()
        assert row is not None
        return None if row[0] is None else str(row[0])


async def until_closed(settings: Settings) -> None:
    """Wait until there is no gap any more; nothing announces it."""
    async with asyncio.timeout(20):
        while await gap(settings) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def reapply(
    settings: Settings, receiver: Receiver, definition: ConsumerDefinition, *, may_lose: bool
) -> list[str]:
    async with (
        await connect(settings.source_dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        declared = Declared("test", definition, "/push")
        return await apply(source, state, [declared], receiver.url, may_lose=may_lose)


async def lose_slot(settings: Settings) -> None:
    """Have the server give the slot up, as it does when the stream is away for too long."""
    async with await connect(settings.source_dsn, "test") as source:
        await source.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        await source.execute("SELECT pg_reload_conf()")
        try:
            for _ in range(40):
                await source.execute("CREATE TABLE public.filler AS SELECT 1 AS a")
                await source.execute("DROP TABLE public.filler")
                await source.execute("SELECT pg_switch_wal()")
                await source.execute("CHECKPOINT")
                cursor = await source.execute(
                    "SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s",
                    [slot_name_for(source.info.dbname)],
                )
                if await cursor.fetchone() == ("lost",):
                    return
            raise AssertionError("the slot was not lost")
        finally:
            await source.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            await source.execute("SELECT pg_reload_conf()")


def test_a_lost_slot_is_replaced_when_that_is_wanted_and_a_backfill_closes_the_gap(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        definition = changes("items", batch_size=10)
        async with Receiver.start() as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, definition)
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'before')")
                await receiver.until(lambda: len(receiver.messages) == 1)
            await execute(settings, "INSERT INTO items VALUES (2, 'in the gap')")
            await lose_slot(settings)

            with pytest.raises(PreflightFailed, match="apply --yes"):
                await reapply(settings, receiver, definition, may_lose=False)
            assert await gap(settings) is None
            done = await reapply(settings, receiver, definition, may_lose=True)
            assert any("triggerkit backfill start test" in line for line in done)
            assert "replication slot was lost" in (await gap(settings) or "")

            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (3, 'after')")
                await receiver.until(lambda: len(receiver.messages) == 2)
                async with (
                    await connect(settings.state_dsn, "test") as state,
                    await connect(settings.source_dsn, "test") as source,
                ):
                    await BackfillStore(state, "test").start(source, "test")
                await receiver.until(lambda: len(receiver.messages) == 5)
                await until_closed(settings)
            names = {m["record"]["name"] for m in receiver.messages}
            assert names == {"before", "in the gap", "after"}

    asyncio.run(scenario())


def test_an_apply_that_ends_as_it_made_the_new_slot_has_noted_the_gap(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def make_and_die(
        source: psycopg.AsyncConnection, slot_name: str, primary: psycopg.AsyncConnection
    ) -> bool:
        await ensure_slot(source, slot_name, primary)
        raise KeyboardInterrupt

    async def scenario() -> None:
        definition = changes("items")
        async with Receiver.start() as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, definition)
            async with await connect(settings.source_dsn, "test") as source:
                await drop_slot(source, slot_name_for(source.info.dbname))
            await execute(settings, "INSERT INTO items VALUES (1, 'in the gap')")
            with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
                patched.setattr(slot_module, "ensure_slot", make_and_die)
                await reapply(settings, receiver, definition, may_lose=False)
            await reapply(settings, receiver, definition, may_lose=False)
            assert "replication slot was lost" in (await gap(settings) or "")

    asyncio.run(scenario())


def test_a_part_of_the_table_does_not_close_a_gap(settings: Settings) -> None:
    """Neither a backfill from a value on, nor up to one, nor one from before the gap."""

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items"))
            note_gap_and_partial_backfills(settings)
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'x')")
                await receiver.until(lambda: len(receiver.messages) == 1)
                assert await gap(settings) == "lost"

    asyncio.run(scenario())


def note_gap_and_partial_backfills(settings: Settings) -> None:
    with psycopg.connect(settings.state_dsn, autocommit=True) as state:
        state.execute(
            "INSERT INTO triggerkit.gaps (consumer_id, kind, cause, ended_at) "
            "SELECT id, 'slot', 'lost', now() FROM triggerkit.consumers"
        )
        for lower, upper, made in (
            ('["1"]', None, "1 hour"),
            (None, '{"until": "5"}', "1 hour"),
            (None, None, "-1 hour"),
        ):
            state.execute(
                "INSERT INTO triggerkit.backfills (consumer_id, schema_name, table_name, state,"
                " lower_bound, upper_bound, created_at) SELECT id, 'public', 'items', "
                "'completed', %s, %s, now() + %s::interval FROM triggerkit.consumers",
                [lower, upper, made],
            )


def test_a_slot_made_while_the_stream_starts_begins_with_its_own_progress(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log's progress was read; then the slot is replaced by one whose LSNs are lower."""

    async def scenario() -> None:
        replaced = False
        open_capture = Capture.open

        @asynccontextmanager
        async def replace_before(
            dsn: str, slot: str, publication: str, after: int, *rest: Any
        ) -> AsyncIterator[Capture]:
            nonlocal replaced
            if not replaced:
                replaced = True
                async with await connect(settings.source_dsn, "test") as source:
                    await source.execute("SELECT pg_drop_replication_slot(%s)", [slot])
                await reapply(settings, receiver, changes("items"), may_lose=True)
                # As on a server whose LSNs begin anew: all that comes seems to be known.
                after = 2**62
            async with open_capture(dsn, slot, publication, after, *rest) as capture:
                yield capture

        async with Receiver.start() as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items"))
            monkeypatch.setattr(Capture, "open", replace_before)
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1, 'x')")
                await receiver.until(lambda: len(receiver.messages) == 1)
        assert replaced

    asyncio.run(scenario())
