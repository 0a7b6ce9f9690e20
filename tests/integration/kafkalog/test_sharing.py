"""Several processes deliver from one log: each partition is of one of them at a time."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import psycopg

from tests.integration.kafkalog.delivering import delivering, with_log_on_kafka
from tests.integration.kafkalog.test_delivery import PATIENCE_S, TABLE, versions
from tests.integration.pipeline import declare, execute, run_until_canceled
from tests.kafka import KafkaServer
from tests.receiver import Receiver
from triggerkit import changes
from triggerkit.settings import Settings

ROWS = 40


def owners(settings: Settings) -> dict[int, str]:
    """Who has which partition."""
    with psycopg.connect(settings.state_dsn) as connection:
        query = "SELECT partition, owner FROM triggerkit.log_owners"
        return dict(connection.execute(query).fetchall())


def test_two_processes_share_the_partitions_and_one_goes_on_alone(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    kafka = with_log_on_kafka(settings, kafka_server)

    async def write(version: int) -> None:
        await execute(kafka, f"UPDATE items SET version = {version}")

    async def scenario() -> None:
        async with Receiver.start() as receiver, AsyncExitStack() as stack:
            pushed_to = kafka.model_copy(update={"triggerkit_public_url": receiver.url})
            await execute(
                kafka, *TABLE, f"INSERT INTO items SELECT i, 0 FROM generate_series(1, {ROWS}) i"
            )
            await declare(kafka, receiver, changes("items", batch_size=5))
            await stack.enter_async_context(run_until_canceled(pushed_to))
            await stack.enter_async_context(delivering(pushed_to))
            await write(1)
            async with delivering(pushed_to):
                async with asyncio.timeout(PATIENCE_S):
                    while len(set(owners(kafka).values())) < 2:  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
                for version in range(2, 8):
                    await write(version)
                await receiver.until(lambda: len(receiver.messages) >= 7 * ROWS, PATIENCE_S)
                assert len(set(owners(kafka).values())) == 2
                await write(8)
            # It left in order: what it had under way was ended, and is not sent again.
            await write(9)
            await receiver.until(lambda: len(receiver.messages) >= 9 * ROWS, PATIENCE_S)
        assert versions(receiver) == {row: [*range(1, 10)] for row in range(1, ROWS + 1)}

    asyncio.run(scenario())


def test_a_table_is_emptied_between_what_was_before_and_after_wherever_that_is_delivered(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    kafka = with_log_on_kafka(settings, kafka_server)

    async def scenario() -> None:
        async with Receiver.start() as receiver, AsyncExitStack() as stack:
            pushed_to = kafka.model_copy(update={"triggerkit_public_url": receiver.url})
            await execute(kafka, *TABLE)
            await declare(kafka, receiver, changes("items", batch_size=5))
            await stack.enter_async_context(run_until_canceled(pushed_to))
            for _ in range(2):
                await stack.enter_async_context(delivering(pushed_to))
            for version in range(3):
                await execute(
                    kafka,
                    f"INSERT INTO items SELECT i, {version} FROM generate_series(1, {ROWS}) i",
                    "TRUNCATE items",
                )
            await receiver.until(lambda: len(receiver.messages) == 3 * (ROWS + 1), PATIENCE_S)
        told = [m["record"] and m["record"]["version"] for m in receiver.messages]
        assert told == [v for n in range(3) for v in [*[n] * ROWS, None]]

    asyncio.run(scenario())
