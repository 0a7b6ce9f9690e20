"""A change is decoded before it is visible: a backfill reading then must not deliver the old row.

A commit that waits for an absent synchronous standby is such a change, for as long as one likes.
The state is in another database, where commits do not wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from tests.integration.consumers.backfill.operator import TABLE, Operator, operating, prepared
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from tests.servers import Background
from triggerkit.consumers.definition import rows
from triggerkit.embedded.postgres import EmbeddedPostgres
from triggerkit.settings import Settings
from triggerkit.state.connect import connect


@pytest.fixture
def lonely(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """A source of its own, so that its commits can be made to wait for an absent standby."""
    background, postgres = Background(), EmbeddedPostgres(tmp_path)
    background.run(postgres.start())
    yield Settings.parse(
        {
            **settings.environment(),
            "DATABASE_URL": postgres.url,
            "TRIGGERKIT_STATE_URL": settings.source_dsn,
        }
    )
    background.run(postgres.stop())


class AbsentStandby:
    """Has commits of the source wait, from `require` until `release`."""

    def __init__(self, settings: Settings, admin: psycopg.AsyncConnection) -> None:
        self._settings = settings
        self._admin = admin
        self._hanging: asyncio.Task[None] | None = None

    async def require(self) -> None:
        """From now on commits wait."""
        await self._set("absent")

    async def release(self) -> None:
        """Commits wait no more, and what waited becomes visible."""
        await self._set("")
        if self._hanging is not None:
            await self._hanging

    async def update(self, key: int) -> None:
        """An update that is in the WAL, and waits: decoded, not visible."""
        self._hanging = asyncio.create_task(
            execute(self._settings, f"UPDATE items SET version = 1 WHERE id = {key}")
        )
        await until_waiting_for_standby(self._admin)

    async def is_visible(self, key: int) -> bool:
        """Whether a SELECT sees the update."""
        cursor = await self._admin.execute("SELECT version FROM public.items WHERE id = %s", [key])
        return await cursor.fetchone() == (1,)

    async def _set(self, name: str) -> None:
        await self._admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        await self._admin.execute("SELECT pg_reload_conf()")


@asynccontextmanager
async def standby(settings: Settings) -> AsyncIterator[AbsentStandby]:
    async with await connect(settings.source_dsn, "test") as admin:
        await admin.execute("SET synchronous_commit = local")
        standby = AbsentStandby(settings, admin)
        yield standby
        await standby.release()


def states_of(receiver: Receiver, key: int) -> list[tuple[str, int]]:
    """The actions and versions of a row, in order of arrival."""
    return [
        (m["action"], m["record"]["version"])
        for m in receiver.messages
        if m["metadata"]["record_pks"] == [str(key)]
    ]


@asynccontextmanager
async def stage(settings: Settings) -> AsyncIterator[tuple[Receiver, Operator, AbsentStandby]]:
    """A stream of a table with four rows, who starts its backfills, and an absent standby."""
    async with (
        Receiver.start() as receiver,
        operating(settings) as operator,
        standby(settings) as absent,
    ):
        await execute(settings, TABLE, "INSERT INTO items SELECT i FROM generate_series(1, 4) i")
        await declare(settings, receiver, rows("items", batch_size=10, start="end"))
        async with streaming(settings, receiver):
            yield receiver, operator, absent


def test_a_row_whose_change_is_decoded_while_the_table_is_read_is_not_delivered_old(
    lonely: Settings,
) -> None:
    async def scenario() -> None:
        async with stage(lonely) as (receiver, operator, absent):
            backfill_id = await operator.start(rows_per_s=1)
            await operator.until_read(backfill_id, 1)
            await absent.require()
            await absent.update(4)
            done = await operator.until_state(backfill_id, "completed")
            assert not await absent.is_visible(4), "row 4 was to be read as it was before"
            assert (done.rows_read, done.rows_logged) == (4, 3)
            await receiver.until(lambda: states_of(receiver, 4) == [("update", 1)])
            await receiver.until(lambda: len(receiver.messages) == 4)

    asyncio.run(scenario())


def test_a_row_whose_change_was_decoded_before_the_backfill_began_is_not_delivered_old(
    lonely: Settings,
) -> None:
    async def scenario() -> None:
        async with stage(lonely) as (receiver, operator, absent):
            await absent.require()
            await absent.update(4)
            await receiver.until(lambda: states_of(receiver, 4) == [("update", 1)])
            backfill_id = await operator.start()
            await until_waiting_or_read(operator, backfill_id)
            assert not await absent.is_visible(4)
            assert (await operator.one(backfill_id)).rows_read == 0
            await absent.release()
            await operator.until_state(backfill_id, "completed")
            await receiver.until(lambda: len(receiver.messages) == 5)
        assert states_of(receiver, 4) == [("update", 1), ("read", 1)]

    asyncio.run(scenario())


async def until_waiting_or_read(operator: Operator, backfill_id: int) -> None:
    """Until the backfill looked several times whether it may read, or has read."""
    looked: set[tuple[object, ...]] = set()
    async with asyncio.timeout(20):
        while len(looked) < 4:
            cursor = await operator.source.execute(
                "SELECT query_start FROM pg_stat_activity "
                "WHERE query LIKE '%txid_current_snapshot%'"
                " AND application_name = 'triggerkit backfill'"
            )
            looked |= set(await cursor.fetchall())
            if (await operator.one(backfill_id)).rows_read:
                return
            await asyncio.sleep(0.02)


async def until_waiting_for_standby(admin: psycopg.AsyncConnection) -> None:
    async with asyncio.timeout(10):
        while True:
            cursor = await admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            )
            row = await cursor.fetchone()
            if row and row[0]:
                return
            await asyncio.sleep(0.02)


def test_a_long_transaction_beside_many_changes_costs_no_memory_and_no_row(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was touched behind it cannot all be remembered: reading waits for it to end."""
    monkeypatch.setattr("triggerkit.consumers.backfill.snapshot.MOST_BYTES", 20_000)

    async def scenario() -> None:
        async with Receiver.start() as receiver, operating(settings) as operator:
            await prepared(
                operator, receiver, 300, "CREATE TABLE items (id int PRIMARY KEY, v int)"
            )
            await execute(settings, "CREATE TABLE others (id int)")
            backfill_id = await operator.start()
            await operator.store.pause(backfill_id)
            async with streaming(settings, receiver):
                async with await connect(settings.source_dsn, "test") as long:
                    await operator.store.resume(backfill_id)
                    async with long.transaction():
                        await long.execute("INSERT INTO public.others VALUES (1)")
                        for _ in range(5):
                            await execute(settings, "UPDATE items SET v = coalesce(v, 0) + 1")
                await operator.until_state(backfill_id, "completed")
                await receiver.until(
                    lambda: (
                        {m["record"]["id"]: m["record"]["v"] for m in receiver.messages}
                        == dict.fromkeys(range(1, 301), 5)
                    )
                )

    asyncio.run(scenario())
