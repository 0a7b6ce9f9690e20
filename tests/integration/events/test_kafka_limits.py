"""What a topic takes is what counts: of one message as it is sent, and of many together."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.events.test_kafka_faults import LARGE, limit, make
from tests.integration.events.written import TABLE, Topics, one, until, with_kafka, writing
from tests.integration.parked import until_states
from tests.integration.pipeline import execute
from tests.kafka import KafkaServer
from triggerkit.events.kafka.faults import TOO_LARGE, KafkaFault
from triggerkit.events.kafka.producer import EventProducer
from triggerkit.events.kafka.record import Record
from triggerkit.settings import Settings

LIMIT = 10_000

#: Text that becomes small.
SMALL_SOON = "repeat('x', 50000)"

#: Has each parked message be tried at once, as `messages retry` does.
BY_COMMAND = """
UPDATE triggerkit.parked SET state = 'failing', failures = 0, due_at = now()
WHERE state = 'blocked'
"""
RETRY = (BY_COMMAND, "NOTIFY triggerkit_consumers")


@pytest.fixture
def compressed(kafka: Settings) -> Settings:
    """Settings by which events are compressed."""
    return with_kafka(kafka, {"KAFKA_COMPRESSION_TYPE": "zstd"})


@pytest.fixture
def small_topic(kafka_server: KafkaServer, written: Topics) -> Topics:
    """The topics, of which that of posts is there, with one partition and a low limit."""
    make(kafka_server, written.name(), config={"max.message.bytes": str(LIMIT)})
    return written


def parked(settings: Settings) -> int:
    count: int = one(settings, "SELECT count(*) FROM triggerkit.parked")
    return count


def test_many_small_events_go_into_a_topic_with_a_low_limit(
    kafka: Settings, small_topic: Topics
) -> None:
    async def scenario() -> None:
        async with writing(kafka, TABLE):
            await execute(
                kafka,
                "INSERT INTO posts SELECT n, repeat('x', 200) FROM generate_series(1, 3000) n",
                "UPDATE posts SET title = 'y'",
            )
            found = await small_topic.until(6000)
        assert len(found) == 6000
        for key in ("1", "1500", "3000"):
            assert [m.event for m in found if m.key == key] == ["inserted", "updated"]
        assert parked(kafka) == 0
        deliveries = "SELECT count(*) FROM triggerkit.deliveries WHERE error IS NOT NULL"
        assert one(kafka, deliveries) == 0

    asyncio.run(scenario())


def test_a_limit_that_is_lowered_is_kept_to_from_then_on(
    kafka: Settings, written: Topics, kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.events.kafka.broker.KNOWN_S", 0.0)
    make(kafka_server, written.name())

    async def scenario() -> None:
        async with writing(kafka, TABLE):
            await execute(kafka, "INSERT INTO posts SELECT generate_series(1, 1000), 'a'")
            await written.until(1000)
            await asyncio.to_thread(limit, kafka_server, written.name(), LIMIT)
            await execute(kafka, "UPDATE posts SET title = repeat('x', 300)")
            found = await written.until(2000)
        assert len(found) == 2000
        assert parked(kafka) == 0

    asyncio.run(scenario())


def test_an_event_that_compression_makes_small_enough_is_written_in_its_order(
    compressed: Settings, small_topic: Topics
) -> None:
    async def scenario() -> None:
        async with writing(compressed, TABLE):
            await execute(
                compressed,
                "INSERT INTO posts SELECT n, 'a' FROM generate_series(1, 100) n",
                f"UPDATE posts SET title = {SMALL_SOON} WHERE id IN (7, 70)",
                "UPDATE posts SET title = 'after'",
            )
            found = await small_topic.until(202)
        assert len(found) == 202
        large = [m for m in found if m.key == "7"]
        assert [m.event for m in large] == ["inserted", "updated", "updated"]
        assert large[1].value is not None
        assert len(large[1].value["data"]["title"]) == 50_000
        assert parked(compressed) == 0

    asyncio.run(scenario())


def test_one_that_stays_too_large_is_parked_by_the_broker_s_word_before_the_rest_of_its_key(
    compressed: Settings, small_topic: Topics, kafka_server: KafkaServer
) -> None:
    async def scenario() -> None:
        async with writing(compressed, TABLE):
            await execute(
                compressed,
                "INSERT INTO posts SELECT n, 'a' FROM generate_series(1, 50) n; "
                f"UPDATE posts SET title = {LARGE} WHERE id = 7; "
                "UPDATE posts SET title = 'after'",
            )
            found = await small_topic.until(99)
            assert [m.event for m in found if m.key == "7"] == ["inserted"]
            await until_states(compressed, "blocked", "waiting")
            reason = one(compressed, "SELECT reason FROM triggerkit.parked ORDER BY position")
            assert TOO_LARGE in reason
            assert "bytes before it is compressed, and the limit is 10,000" in reason
            await asyncio.to_thread(limit, kafka_server, small_topic.name(), 100_000)
            await execute(compressed, *RETRY)
            found = await small_topic.until(101)
        assert [m.event for m in found if m.key == "7"] == ["inserted", "updated", "updated"]
        assert len(found) == 101

    asyncio.run(scenario())


def test_without_compression_the_broker_is_not_asked(kafka: Settings, small_topic: Topics) -> None:
    plain = with_kafka(kafka, {"KAFKA_COMPRESSION_TYPE": "none"})

    async def scenario() -> None:
        async with writing(plain, TABLE):
            await execute(
                plain,
                f"INSERT INTO posts VALUES (1, {SMALL_SOON}), (2, 'a')",
                "UPDATE posts SET title = 'after'",
            )
            await until_states(plain, "blocked", "waiting")
            found = await small_topic.until(2)
        assert {m.key for m in found} == {"2"}
        reason = one(plain, "SELECT reason FROM triggerkit.parked ORDER BY position")
        assert "bytes, and the limit is 10,000" in reason

    asyncio.run(scenario())


def test_a_tombstone_does_not_come_before_the_delete_that_is_refused(
    compressed: Settings,
    written: Topics,
    kafka_server: KafkaServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("triggerkit.events.kafka.broker.KNOWN_S", 0.0)
    make(kafka_server, written.name())

    async def scenario() -> None:
        async with writing(compressed, TABLE, tombstones=True):
            await execute(compressed, f"INSERT INTO posts VALUES (1, {LARGE})")
            await written.until(1)
            await asyncio.to_thread(limit, kafka_server, written.name(), LIMIT)
            await execute(compressed, "DELETE FROM posts")
            await until_states(compressed, "blocked")
            assert len(await asyncio.to_thread(written.read)) == 1
            await asyncio.to_thread(limit, kafka_server, written.name(), 100_000)
            await execute(compressed, *RETRY)
            found = await written.until(3)
        assert [m.event for m in found] == ["inserted", "deleted", None]

    asyncio.run(scenario())


def test_the_size_of_a_message_is_the_broker_s_to_the_byte(
    kafka: Settings, kafka_server: KafkaServer, written: Topics
) -> None:
    plain, topic = with_kafka(kafka, {"KAFKA_COMPRESSION_TYPE": "none"}), written.name()
    make(kafka_server, topic)
    headers = (("lsn", "123456"), ("previous_key", "ü" * 90))
    records = [
        Record(number, topic, key, b"x" * length, headers, 1793223561127)
        for number, (key, length) in enumerate(((None, 3), ("k", 70), ("日" * 30, 9000)))
    ]

    async def scenario() -> None:
        producer = EventProducer(plain.kafka)
        try:
            for record in records:
                size_bytes = record.size_bytes
                await asyncio.to_thread(limit, kafka_server, topic, size_bytes - 1)
                with pytest.raises(KafkaFault, match=TOO_LARGE):
                    await producer.send(("no", record.offset), [record], 20)
                await asyncio.to_thread(limit, kafka_server, topic, size_bytes)
                await producer.send(("yes", record.offset), [record], 20)
        finally:
            await producer.close()

    asyncio.run(scenario())
    assert len(kafka_server.read(topic)) == len(records)


def test_a_limit_that_nobody_may_read_is_found_by_the_broker_s_word(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    guest = with_kafka(settings, kafka_server.settings_of("guest"))
    written = Topics(kafka_server, settings)
    make(kafka_server, written.name(), config={"max.message.bytes": "3000000"})
    kafka_server.allow("guest", written.name())

    async def scenario() -> None:
        async with writing(guest, TABLE):
            await execute(
                guest,
                "INSERT INTO posts VALUES (1, repeat('x', 2000000)); "
                "UPDATE posts SET title = 'small'",
            )
            found = await written.until(2)
        assert [m.event for m in found] == ["inserted", "updated"]

    asyncio.run(scenario())
    assert parked(guest) == 0


def test_a_batch_that_is_no_number_of_bytes_is_refused(kafka: Settings) -> None:
    wrong = with_kafka(kafka, {"KAFKA_BATCH_SIZE": "many"})

    async def scenario() -> None:
        async with writing(wrong, TABLE):
            error = await until(
                lambda: one(wrong, "SELECT last_error FROM triggerkit.consumers"), "error"
            )
            assert "KAFKA_BATCH_SIZE is not a number of bytes" in error

    asyncio.run(scenario())
