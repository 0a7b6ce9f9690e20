"""From a row's change through Kafka to a push: one process captures, others deliver."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from confluent_kafka.admin import AdminClient, NewTopic

from tests.integration.kafkalog.delivering import streaming_over_kafka, with_log_on_kafka
from tests.integration.parked import fetch, until_states
from tests.integration.pipeline import declare, execute
from tests.kafka import KafkaServer
from tests.receiver import Receiver
from triggerkit import changes, rows
from triggerkit.kafkalog.topic import topic_name
from triggerkit.log.entry import PARTITIONS
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

TABLE = (
    "CREATE TABLE items (id bigint PRIMARY KEY, version int, note text)",
    "ALTER TABLE items REPLICA IDENTITY FULL",
)

#: Seconds until something has come; a machine with other work on it is slow to start Kafka's group.
PATIENCE_S = 60.0


def versions(receiver: Receiver) -> dict[int, list[int]]:
    """The versions of each row, in the order in which they came."""
    found: dict[int, list[int]] = defaultdict(list)
    for message in receiver.messages:
        if message["record"] is not None:
            found[message["record"]["id"]].append(message["record"]["version"])
    return found


def test_changes_are_pushed_in_the_order_of_each_row(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    kafka = with_log_on_kafka(settings, kafka_server)

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(kafka, *TABLE)
            await declare(kafka, receiver, changes("items", batch_size=7))
            async with streaming_over_kafka(kafka, receiver):
                await execute(kafka, "INSERT INTO items SELECT i, 0 FROM generate_series(1, 50) i")
                for version in range(1, 5):
                    await execute(kafka, f"UPDATE items SET version = {version}")
                await receiver.until(lambda: len(receiver.messages) >= 250, PATIENCE_S)
        assert versions(receiver) == {row: [0, 1, 2, 3, 4] for row in range(1, 51)}
        assert len(receiver.messages) == 250

    asyncio.run(scenario())


def test_what_the_topic_does_not_take_is_parked_and_holds_its_own_row_alone(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    kafka = with_log_on_kafka(settings, kafka_server)

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(kafka, *TABLE)
            await declare(kafka, receiver, changes("items"))
            async with streaming_over_kafka(kafka, receiver):
                await execute(
                    kafka,
                    "INSERT INTO items SELECT i, 0 FROM generate_series(1, 20) i",
                    "INSERT INTO items VALUES (50, 1, repeat('x', 1500000))",
                    "UPDATE items SET version = 2, note = 'short'",
                    "UPDATE items SET version = 4 WHERE id = 50",
                    "INSERT INTO items VALUES (51, 3)",
                )
                await receiver.until(lambda: len(receiver.messages) == 41, PATIENCE_S)
                # The update that makes it short has what it was.
                await until_states(kafka, "blocked", "blocked", "waiting")
        assert versions(receiver) == {**{row: [0, 2] for row in range(1, 21)}, 51: [3]}
        reasons = await fetch(kafka, "SELECT reason FROM triggerkit.parked WHERE state = 'blocked'")
        assert all("is larger than the limit of 1048388" in reason for (reason,) in reasons)

    asyncio.run(scenario())


def test_a_row_whose_key_the_topic_does_not_take_is_parked_and_holds_itself_alone(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    kafka = with_log_on_kafka(settings, kafka_server)

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(
                kafka,
                "CREATE TABLE items (id text PRIMARY KEY, version int)",
                "ALTER TABLE items REPLICA IDENTITY FULL",
            )
            await declare(kafka, receiver, changes("items"))
            await make_small_topic(kafka, kafka_server, 20_000)
            async with streaming_over_kafka(kafka, receiver):
                await execute(
                    kafka,
                    "INSERT INTO items VALUES (repeat('k', 100000), 1), ('short', 1)",
                    "UPDATE items SET version = 2",
                    "INSERT INTO items VALUES ('next', 3)",
                )
                await receiver.until(lambda: len(receiver.messages) == 3, PATIENCE_S)
                await until_states(kafka, "blocked", "blocked")
        found = [(m["record"]["id"], m["record"]["version"]) for m in receiver.messages]
        assert sorted(found) == [("next", 3), ("short", 1), ("short", 2)]
        parked = await fetch(kafka, "SELECT DISTINCT key, reason FROM triggerkit.parked")
        assert len(parked) == 1, "both are of one row"
        assert "key of 100004 bytes is larger than the limit of 19800" in parked[0][1]

    asyncio.run(scenario())


async def make_small_topic(settings: Settings, server: KafkaServer, limit_bytes: int) -> None:
    """Make the log's topic, which takes no more than so many bytes of a message."""
    async with await connect(settings.state_dsn, "test") as state:
        name = await topic_name(state, 1)
    admin = AdminClient({"bootstrap.servers": server.settings()["KAFKA_BOOTSTRAP_SERVERS"]})
    config = {"max.message.bytes": str(limit_bytes)}
    [made] = admin.create_topics([NewTopic(name, PARTITIONS, 1, config=config)]).values()
    await asyncio.to_thread(made.result, 30)


def test_existing_rows_are_read_while_they_change(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    kafka = with_log_on_kafka(settings, kafka_server)
    definition = rows("items", start="beginning", when_changed=["version"], batch_size=50)

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(
                kafka, *TABLE, "INSERT INTO items SELECT i, 0 FROM generate_series(1, 3000) i"
            )
            await declare(kafka, receiver, definition)
            async with streaming_over_kafka(kafka, receiver):
                for number in range(10):
                    # Of no column that counts: such a change may be the only bearer of its row.
                    await execute(kafka, f"UPDATE items SET note = '{number}' WHERE id % 3 = 0")
                await execute(kafka, "UPDATE items SET version = 1 WHERE id % 2 = 0")

                def is_whole() -> bool:
                    found = versions(receiver)
                    last = {row: found[row][-1] for row in found}
                    return last == {row: int(row % 2 == 0) for row in range(1, 3001)}

                await receiver.until(is_whole, PATIENCE_S)

    asyncio.run(scenario())
