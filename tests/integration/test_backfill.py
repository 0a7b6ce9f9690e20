"""Backfill beside live changes: nothing lost, nothing stale after something newer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from tests.servers import Background
from triggerkit.consumers.definition import rows
from triggerkit.embedded.postgres import EmbeddedPostgres
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

TABLE = """
CREATE TABLE items (id bigint PRIMARY KEY, version int NOT NULL DEFAULT 0, name text);
ALTER TABLE items REPLICA IDENTITY FULL
"""


class LastStates:
    """The version delivered last per key; None where a delete was. Reads each request once."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._read = 0
        self._states: dict[str, int | None] = {}

    def __call__(self) -> dict[str, int | None]:
        new = self._receiver.requests[self._read :]
        self._read += len(new)
        for message in (m for request in new for m in request.messages):
            key = message["metadata"]["record_pks"][0]
            deleted = message["action"] == "delete"
            self._states[key] = None if deleted else message["record"]["version"]
        return self._states


def last_states(receiver: Receiver) -> dict[str, int | None]:
    """What `LastStates` tells when nothing more comes."""
    return LastStates(receiver)()


def test_rows_changed_while_they_are_read_end_in_their_last_state(settings: Settings) -> None:
    async def write(connection: psycopg.AsyncConnection) -> None:
        for round_ in range(1, 30):
            await connection.execute(
                "UPDATE public.items SET version = version + 1 WHERE id %% 29 = %s", [round_]
            )
            await connection.execute("DELETE FROM public.items WHERE id = %s", [round_ * 50])
            await connection.execute(
                "UPDATE public.items SET id = id + 100000 WHERE id = %s", [round_ * 51]
            )
            await connection.execute("INSERT INTO public.items VALUES (%s)", [200_000 + round_])

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(
                settings, TABLE, "INSERT INTO items SELECT i FROM generate_series(1, 20000) i"
            )
            await declare(settings, receiver, rows("items", batch_size=1000))
            async with (
                streaming(settings, receiver),
                await connect(settings.source_dsn, "test") as source,
            ):
                await write(source)
                cursor = await source.execute("SELECT id::text, version FROM public.items")
                truth: dict[str, int] = dict(await cursor.fetchall())

                states = LastStates(receiver)

                def converged() -> bool:
                    return {k: v for k, v in states().items() if v is not None} == truth

                await receiver.until(converged, timeout_s=40)
            versions: dict[str, int] = {}
            for message in receiver.messages:
                if message["action"] != "delete":
                    key, version = (
                        message["metadata"]["record_pks"][0],
                        message["record"]["version"],
                    )
                    assert version >= versions.get(key, 0), "an older version after a newer one"
                    versions[key] = version

    asyncio.run(scenario())


def test_a_backfill_goes_on_after_a_restart(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(
                settings, TABLE, "INSERT INTO items SELECT i FROM generate_series(1, 30000) i"
            )
            await declare(settings, receiver, rows("items", batch_size=1000))
            async with streaming(settings, receiver):
                await receiver.until(lambda: len(receiver.messages) > 1000)
            async with streaming(settings, receiver):
                states = LastStates(receiver)
                await receiver.until(lambda: len(states()) == 30_000)
            with psycopg.connect(settings.state_dsn) as state:
                row = state.execute(
                    "SELECT state, rows_read, rows_logged, (SELECT count(*) FROM triggerkit.events)"
                    " FROM triggerkit.backfills"
                ).fetchone()
            assert row == ("completed", 30_000, 30_000, 30_000)

    asyncio.run(scenario())


def test_a_table_that_is_gone_stops_its_backfill_and_not_the_stream(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE, "CREATE TABLE other (id int PRIMARY KEY)")
            await declare(settings, receiver, rows("items"), name="items")
            await declare(settings, receiver, rows("other"), name="other")
            await execute(settings, "DROP TABLE other")
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items VALUES (1)")
                await receiver.until(lambda: len(receiver.messages) == 1)
                assert "other" in await until_error(settings, "other")

    asyncio.run(scenario())


@pytest.fixture
def lonely_source(tmp_path: Path) -> Iterator[str]:
    """A source of its own, so that its commits can be made to wait for an absent standby."""
    background, postgres = Background(), EmbeddedPostgres(tmp_path)
    background.run(postgres.start())
    yield postgres.url
    background.run(postgres.stop())


def test_a_change_decoded_before_it_is_visible_is_not_followed_by_the_old_row(
    settings: Settings, lonely_source: str
) -> None:
    state_elsewhere = Settings.parse(
        {
            **settings.environment(),
            "DATABASE_URL": lonely_source,
            "TRIGGERKIT_STATE_URL": settings.source_dsn,
        }
    )

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(
                state_elsewhere, TABLE, "INSERT INTO items SELECT i FROM generate_series(1, 5) i"
            )
            await declare(state_elsewhere, receiver, rows("items", batch_size=10))
            async with await connect(lonely_source, "test") as admin:
                await admin.execute("SET synchronous_commit = local")
                await admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'absent'")
                await admin.execute("SELECT pg_reload_conf()")
                # Committed in the WAL, and waiting for the standby: decoded, not visible.
                hanging = asyncio.create_task(
                    execute(state_elsewhere, "UPDATE items SET version = 1 WHERE id = 3")
                )
                await until_waiting_for_standby(admin)
                async with streaming(state_elsewhere, receiver):
                    await receiver.until(lambda: "3" in last_states(receiver))
                    cursor = await admin.execute("SELECT version FROM public.items WHERE id = 3")
                    assert await cursor.fetchone() == (0,), "the update must not be visible yet"
                    await admin.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
                    await admin.execute("SELECT pg_reload_conf()")
                    await hanging
                    await receiver.until(lambda: len(last_states(receiver)) == 5)
            assert last_states(receiver)["3"] == 1
            reads = [m for m in receiver.messages if m["action"] == "read"]
            read_versions = {m["metadata"]["record_pks"][0]: m["record"]["version"] for m in reads}
            assert read_versions.get("3", 1) == 1, "the old row came after its newer change"

    asyncio.run(scenario())


async def until_error(settings: Settings, consumer: str) -> str:
    async with asyncio.timeout(10), await connect(settings.state_dsn, "test") as state:
        while True:
            cursor = await state.execute(
                "SELECT last_error FROM triggerkit.consumers WHERE name = %s", [consumer]
            )
            row = await cursor.fetchone()
            if row and row[0]:
                return str(row[0])
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
