"""Backfill beside live changes: nothing lost, nothing stale after something newer."""

from __future__ import annotations

import asyncio

import psycopg

from tests.integration.consumers.backfill.operator import operating
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.definition import rows
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
                async with operating(settings) as operator:
                    await operator.until_state(1, "completed")
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
