"""What the topic's retention drops before it is delivered is a gap; what is replayed is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tests.integration.kafkalog.delivering import (
    delivering,
    streaming_over_kafka,
    with_log_on_kafka,
)
from tests.integration.kafkalog.test_delivery import PATIENCE_S, TABLE, versions
from tests.integration.pipeline import declare, execute, run_until_canceled
from tests.kafka import KafkaServer
from tests.receiver import Receiver
from triggerkit import changes
from triggerkit.consumers.declare.rewind import rewind
from triggerkit.consumers.extents import first_position
from triggerkit.consumers.health import ConsumerHealth, consumer_health
from triggerkit.errors import ConfigurationError
from triggerkit.kafkalog.stored import Extent
from triggerkit.kafkalog.topic import topic_name
from triggerkit.log.entry import PARTITIONS
from triggerkit.settings import Settings
from triggerkit.state.channels import notify_consumers
from triggerkit.state.connect import connect
from triggerkit.supervisor.streaming import kafka_keeping


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream looks at the log often."""
    monkeypatch.setattr(kafka_keeping, "LOOK_S", 0.5)


async def change(settings: Settings, *statements: str) -> None:
    """Run statements on the state, and have them taken in."""
    async with await connect(settings.state_dsn, "test") as state:
        for statement in statements:
            await state.execute(statement)
        await notify_consumers(state)


async def drop(settings: Settings, server: KafkaServer) -> None:
    """Drop all that the log has, as its topic's retention does."""
    async with await connect(settings.state_dsn, "test") as state:
        name = await topic_name(state, 1)
    admin = AdminClient({"bootstrap.servers": server.settings()["KAFKA_BOOTSTRAP_SERVERS"]})
    ends = [TopicPartition(name, n, -1) for n in range(PARTITIONS)]
    for answer in admin.delete_records(ends).values():
        await asyncio.to_thread(answer.result, 30)


async def head(settings: Settings) -> int:
    """The last position of the log."""
    async with await connect(settings.state_dsn, "test") as state:
        cursor = await state.execute("SELECT next_position - 1 FROM triggerkit.databases")
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def until_it_begins_after(settings: Settings, position: int) -> None:
    """Wait until the state knows that no partition has this position any more."""
    query = "SELECT min(first_position) > %s FROM triggerkit.log_extents"
    async with await connect(settings.state_dsn, "test") as state, asyncio.timeout(PATIENCE_S):
        while await (await state.execute(query, [position])).fetchone() != (True,):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def until(settings: Settings, what: Callable[[ConsumerHealth], bool]) -> ConsumerHealth:
    """Wait until it holds of the consumer."""
    async with await connect(settings.state_dsn, "test") as state:
        found: list[ConsumerHealth] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    found = await consumer_health(state)
                    if what(found[0]):
                        return found[0]
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"last seen: {found}")


def test_what_a_paused_consumer_had_not_got_is_a_gap_and_counted_before(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    kafka = with_log_on_kafka(settings, kafka_server)

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(kafka, *TABLE, "CREATE TABLE others (id bigint PRIMARY KEY)")
            await declare(kafka, receiver, changes("items"))
            async with streaming_over_kafka(kafka, receiver):
                await execute(kafka, "INSERT INTO items SELECT i, 0 FROM generate_series(1, 40) i")
                await receiver.until(lambda: len(receiver.messages) == 40, PATIENCE_S)
                await until(kafka, lambda health: health.lag_messages == 0)
                await change(kafka, "UPDATE triggerkit.consumers SET state = 'paused'")
                await execute(
                    kafka,
                    "UPDATE items SET version = 1",
                    "INSERT INTO others SELECT generate_series(1, 40)",
                )
                behind = await until(kafka, lambda health: health.lag_messages >= 40)
                assert (behind.lag_messages, behind.gap) == (40, None)
                assert 0 < behind.lag_seconds < PATIENCE_S
                before = await head(kafka)
                await drop(kafka, kafka_server)
                await execute(kafka, "UPDATE items SET version = 2")
                await until_it_begins_after(kafka, before)
                lost = await until(kafka, lambda health: health.gap is not None)
                assert lost.gap is not None
                assert "were dropped from the log on Kafka, by what its topic keeps" in lost.gap
                [problem] = [one for one in lost.problems if one.name == "gap"]
                assert problem.remedy.startswith("triggerkit backfill start test")
                await change(kafka, "UPDATE triggerkit.consumers SET state = 'active'")
                await receiver.until(lambda: len(receiver.messages) >= 80, PATIENCE_S)
                await until(kafka, lambda health: health.lag_messages == 0)
        assert versions(receiver) == {row: [0, 2] for row in range(1, 41)}

    asyncio.run(scenario())


def test_what_was_dropped_while_nobody_ran_is_a_gap_before_anything_is_delivered(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    kafka = with_log_on_kafka(settings, kafka_server)

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            pushed_to = kafka.model_copy(update={"triggerkit_public_url": receiver.url})
            await execute(kafka, *TABLE)
            await declare(kafka, receiver, changes("items"))
            async with run_until_canceled(pushed_to):
                await execute(kafka, "INSERT INTO items SELECT i, 0 FROM generate_series(1, 40) i")
                await until(kafka, lambda health: health.lag_messages == 40)
                await drop(kafka, kafka_server)
                await execute(kafka, "UPDATE items SET version = 1")
                await until(kafka, lambda health: health.gap is not None)
                # As if the stream had not looked since.
                await change(
                    kafka,
                    "DELETE FROM triggerkit.gaps",
                    "UPDATE triggerkit.cursors SET position = 0",
                )
                async with delivering(pushed_to):
                    await receiver.until(lambda: len(receiver.messages) >= 40, PATIENCE_S)
        async with await connect(kafka.state_dsn, "test") as state:
            [health] = await consumer_health(state)
        assert health.gap is not None
        assert versions(receiver) == {row: [1] for row in range(1, 41)}

    asyncio.run(scenario())


def test_a_replay_from_the_beginning_begins_where_each_partition_does_without_a_gap(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    kafka = with_log_on_kafka(settings, kafka_server)

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(kafka, *TABLE)
            await declare(kafka, receiver, changes("items"))
            async with streaming_over_kafka(kafka, receiver):
                await execute(kafka, "INSERT INTO items SELECT i, 0 FROM generate_series(1, 40) i")
                await receiver.until(lambda: len(receiver.messages) == 40, PATIENCE_S)
                await drop(kafka, kafka_server)
                await execute(kafka, "UPDATE items SET version = 1")
                await receiver.until(lambda: len(receiver.messages) >= 80, PATIENCE_S)
                await until(kafka, lambda health: health.lag_messages == 0)
                await until_it_begins_after(kafka, 40)
                async with await connect(kafka.state_dsn, "test") as state:
                    with pytest.raises(ConfigurationError, match="the log begins at position"):
                        await rewind(state, 1, 1)
                    with pytest.raises(ConfigurationError, match="is not searched by time; replay"):
                        await rewind(state, 1, "2026-11-22T08:00:00+00:00")
                    rewound = await rewind(state, 1, "beginning")
                    assert rewound.first_position > 40
                    await notify_consumers(state)
                await receiver.until(lambda: len(receiver.messages) >= 120, PATIENCE_S)
                found = await until(kafka, lambda health: health.lag_messages == 0)
                assert found.gap is None
        assert versions(receiver) == {row: [0, 1, 1] for row in range(1, 41)}

    asyncio.run(scenario())


def test_deliveries_of_what_is_gone_are_forgotten(
    settings: Settings, kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_keeping, "_KEEP_S", 0.5)
    kafka = with_log_on_kafka(settings, kafka_server)

    def kept() -> int:
        with psycopg.connect(kafka.state_dsn) as connection:
            row = connection.execute("SELECT count(*) FROM triggerkit.deliveries").fetchone()
        assert row is not None
        return int(row[0])

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(kafka, *TABLE)
            await declare(kafka, receiver, changes("items", batch_size=1))
            async with streaming_over_kafka(kafka, receiver):
                await execute(kafka, "INSERT INTO items SELECT i, 0 FROM generate_series(1, 40) i")
                await receiver.until(lambda: len(receiver.messages) == 40, PATIENCE_S)
                await until(kafka, lambda health: health.lag_messages == 0)
                assert kept() == 40
                await drop(kafka, kafka_server)
                async with asyncio.timeout(PATIENCE_S):
                    while kept():  # noqa: ASYNC110
                        await asyncio.sleep(0.1)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("extent", "known_last", "first"),
    [
        (Extent(0, 9, 3, 8), 0, 1),
        (Extent(0, 0, None, None), 0, 1),
        (Extent(4, 9, 7, 8), 8, 7),
        (Extent(9, 9, None, None), 8, 9),
        (Extent(0, 9, 30, 38), 8, 30),
        (Extent(0, 0, None, None), 8, 9),
    ],
    ids=["whole", "empty", "begins later", "all dropped", "made anew", "made anew, empty"],
)
def test_a_partition_begins_where_something_was_dropped(
    extent: Extent, known_last: int, first: int
) -> None:
    assert first_position(extent, known_last) == first
