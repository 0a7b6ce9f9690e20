"""What goes wrong with Kafka is told with its remedy, loses nothing, and goes on when mended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from tests.integration.events.written import TABLE, Topics, one, until, with_kafka, writing
from tests.integration.pipeline import execute
from tests.kafka import KafkaServer
from tests.ports import free_port
from triggerkit.consumers.health import Problem, consumer_health
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

#: Text that compression makes no smaller.
LARGE = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 1250))"


def problems(settings: Settings) -> Sequence[Problem]:
    async def read() -> Sequence[Problem]:
        async with await connect(settings.state_dsn, "test") as state:
            return [p for health in await consumer_health(state) for p in health.problems]

    return asyncio.run(read())


def failing(settings: Settings, text: str) -> Problem | None:
    return next((p for p in problems(settings) if text in p.detail), None)


def last_error(settings: Settings) -> str | None:
    error: str | None = one(settings, "SELECT last_error FROM triggerkit.consumers")
    return error


def limit(server: KafkaServer, topic: str, max_bytes: int) -> None:
    """Let the topic take messages of so many bytes at most."""
    configure(server, topic, "max.message.bytes", str(max_bytes))


def configure(server: KafkaServer, topic: str, name: str, value: str) -> None:
    """Set a property of the topic."""
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin = server.admin
    for answer in admin.incremental_alter_configs([resource]).values():
        answer.result(timeout=20)
    asked = ConfigResource(ConfigResource.Type.TOPIC, topic)
    for _ in range(100):
        (found,) = [a.result(timeout=20) for a in admin.describe_configs([asked]).values()]
        if found[name].value == value:
            return
    raise AssertionError(f"{name} of {topic} is not {value}")


def make(server: KafkaServer, topic: str, **options: Any) -> None:
    admin = server.admin
    for answer in admin.create_topics([NewTopic(topic, num_partitions=1, **options)]).values():
        answer.result(timeout=20)


def delete(server: KafkaServer, topic: str) -> None:
    admin = server.admin
    for answer in admin.delete_topics([topic]).values():
        answer.result(timeout=20)


def confirmed(settings: Settings) -> Any:
    with psycopg.connect(settings.source_dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE database = "
            "current_database()"
        ).fetchone()
    return None if row is None else row[0]


def test_a_broker_that_is_away_holds_up_nothing_and_gets_all_when_it_is_back(
    kafka: Settings, written: Topics, kafka_server: KafkaServer
) -> None:
    async def scenario() -> None:
        async with writing(kafka, TABLE):
            await execute(kafka, "INSERT INTO posts VALUES (1, 'a')")
            await written.until(1)
            await asyncio.to_thread(kafka_server.stop, force=True)
            try:
                before = confirmed(kafka)
                for number in range(2, 30):
                    await execute(kafka, f"INSERT INTO posts VALUES ({number}, 'a')")
                found = await until(
                    lambda: failing(kafka, "Kafka: the broker is not reached"), "problem"
                )
                assert found.name == "kafka_failing"
                assert found.remedy == "start the broker, or correct KAFKA_BOOTSTRAP_SERVERS"
                # The source's WAL goes on meanwhile.
                await until(lambda: confirmed(kafka) != before, "confirmed LSN")
            finally:
                await asyncio.to_thread(kafka_server.start)
            all_of_them = await written.until(29)
            assert sorted(int(m.key or 0) for m in all_of_them) == list(range(1, 30))
            await until(lambda: last_error(kafka) is None, "end of the error")
            assert not await asyncio.to_thread(problems, kafka)

    asyncio.run(scenario())


def test_a_broker_that_is_not_there_at_the_start_is_waited_for(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    away = with_kafka(settings, {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"})
    written = Topics(kafka_server, settings)

    async def scenario() -> None:
        async with writing(away, TABLE):
            await execute(away, "INSERT INTO posts VALUES (1, 'a')")
            await until(lambda: failing(away, "Kafka: the broker is not reached"), "problem")
        async with writing(with_kafka(settings, kafka_server.settings())):
            assert [m.key for m in await written.until(1)] == ["1"]

    asyncio.run(scenario())


def test_a_broker_that_comes_after_the_start_gets_all_without_a_restart(
    kafka: Settings, written: Topics, kafka_server: KafkaServer
) -> None:
    async def scenario() -> None:
        await asyncio.to_thread(kafka_server.stop)
        try:
            async with writing(kafka, TABLE):
                await execute(kafka, "INSERT INTO posts VALUES (1, 'a')")
                await until(lambda: failing(kafka, "Kafka: the broker is not reached"), "problem")
                await asyncio.to_thread(kafka_server.start)
                assert [m.key for m in await written.until(1)] == ["1"]
                await until(lambda: last_error(kafka) is None, "end of the error")
        finally:
            await asyncio.to_thread(kafka_server.start)

    asyncio.run(scenario())


def test_a_topic_that_is_deleted_is_made_anew_and_gets_what_comes(
    kafka: Settings, written: Topics, kafka_server: KafkaServer
) -> None:
    async def scenario() -> None:
        async with writing(kafka, TABLE, partitions=2):
            await execute(kafka, "INSERT INTO posts VALUES (1, 'a')")
            await written.until(1)
            await asyncio.to_thread(delete, kafka_server, written.name())
            for number in range(2, 12):
                await execute(kafka, f"INSERT INTO posts VALUES ({number}, 'a')")
            found = await written.until(10)
        assert {int(m.key or 0) for m in found} == set(range(2, 12))

    asyncio.run(scenario())


def test_a_message_that_is_too_large_is_parked_before_anything_of_its_key(
    kafka: Settings, written: Topics, kafka_server: KafkaServer
) -> None:
    make(kafka_server, written.name(), config={"max.message.bytes": "10000"})

    async def scenario() -> None:
        async with writing(kafka, TABLE, too_large="block"):
            await execute(
                kafka,
                "INSERT INTO posts VALUES (1, 'a'), (2, 'a'); "
                f"UPDATE posts SET title = {LARGE} WHERE id = 1; "
                "UPDATE posts SET title = 'after' WHERE id = 1; "
                "UPDATE posts SET title = 'b' WHERE id = 2",
            )
            found = await written.until(3)
            states = await until(
                lambda: one(
                    kafka,
                    "SELECT array_agg(state ORDER BY position) FROM triggerkit.parked "
                    "HAVING count(*) = %s",
                    2,
                ),
                "parked message",
            )
            reason = one(kafka, "SELECT reason FROM triggerkit.parked ORDER BY position")
            assert f"larger than the topic takes (topic {written.name()})" in reason
            assert "the limit is 10,000" in reason
            assert [m.event for m in found if m.key == "2"] == ["inserted", "updated"]
            assert states == ["blocked", "waiting"]
            assert [m.event for m in found if m.key == "1"] == ["inserted"]

    asyncio.run(scenario())


def test_the_key_of_a_message_that_is_too_large_goes_on_where_that_is_wanted(
    kafka: Settings, written: Topics, kafka_server: KafkaServer
) -> None:
    make(kafka_server, written.name(), config={"max.message.bytes": "10000"})

    async def scenario() -> None:
        async with writing(kafka, TABLE, too_large="skip"):
            await execute(
                kafka,
                f"INSERT INTO posts VALUES (1, {LARGE})",
                "INSERT INTO posts VALUES (2, 'a')",
            )
            await written.until(1)
            await execute(kafka, "UPDATE posts SET title = 'x' WHERE id = 2", "TRUNCATE posts")
            await execute(kafka, "INSERT INTO posts VALUES (1, 'small')")
            found = await written.until(4)
        assert [m.event for m in found if m.key == "1"] == ["inserted"]
        assert one(kafka, "SELECT state FROM triggerkit.parked") in ("dead", "superseded")

    asyncio.run(scenario())


def test_a_parked_message_goes_once_its_topic_takes_it_and_its_key_behind_it(
    kafka: Settings, written: Topics, kafka_server: KafkaServer
) -> None:
    make(kafka_server, written.name(), config={"max.message.bytes": "10000"})

    async def scenario() -> None:
        async with writing(kafka, TABLE):
            await execute(
                kafka,
                f"INSERT INTO posts VALUES (1, {LARGE})",
                "DELETE FROM posts",
                "INSERT INTO posts VALUES (1, 'a')",
            )
            parked = "SELECT count(*) = 3 FROM triggerkit.parked"
            await until(lambda: one(kafka, parked), "parked messages")
            assert not await asyncio.to_thread(written.read)
            await asyncio.to_thread(limit, kafka_server, written.name(), 100_000)
            await execute(
                kafka,
                "UPDATE triggerkit.parked SET state = 'failing', failures = 0, due_at = now() "
                "WHERE state = 'blocked'",
                "NOTIFY triggerkit_consumers",
            )
            found = await written.until(3)
        assert [m.event for m in found] == ["inserted", "deleted", "inserted"]

    asyncio.run(scenario())


def test_credentials_that_are_refused_are_told(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    wrong = with_kafka(settings, kafka_server.settings_of("admin", "not the password at all"))

    async def scenario() -> None:
        async with writing(wrong, TABLE):
            await execute(wrong, "INSERT INTO posts VALUES (1, 'a')")
            found = await until(
                lambda: failing(wrong, "Kafka: the broker refuses the credentials"), "problem"
            )
            assert "KAFKA_SASL_PASSWORD" in found.remedy
            assert "not the password" not in f"{found} {last_error(wrong)}"

    asyncio.run(scenario())


def test_who_may_not_write_is_told_and_goes_on_once_that_is_allowed(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    guest = with_kafka(settings, kafka_server.settings_of("guest"))
    written = Topics(kafka_server, settings)

    async def scenario() -> None:
        async with writing(guest, TABLE):
            await execute(guest, "INSERT INTO posts VALUES (1, 'a')")
            found = await until(lambda: failing(guest, "the topic is not seen"), "problem")
            assert f"--topic {written.name()} --partitions 8" in found.remedy
            await asyncio.to_thread(make, kafka_server, written.name())
            await asyncio.to_thread(kafka_server.allow, "guest", written.name())
            assert [m.key for m in await written.until(1)] == ["1"]

    asyncio.run(scenario())
