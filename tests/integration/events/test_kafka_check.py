"""`check` says what Kafka has of the topics, and what deleted events carry."""

from __future__ import annotations

import asyncio

from tests.integration.events.written import TABLE, Topics, declare_events, with_kafka, writing
from tests.integration.pipeline import execute
from tests.kafka import KafkaServer
from tests.ports import free_port
from triggerkit.settings import Settings
from triggerkit.supervisor.checks.check import Check
from triggerkit.supervisor.checks.events import check_events


def checked(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in asyncio.run(check_events(settings))}


def test_topics_are_looked_at_where_kafka_is_reached(
    kafka: Settings, written: Topics, kafka_server: KafkaServer
) -> None:
    assert checked(kafka) == {}

    async def write() -> None:
        async with writing(kafka, TABLE, partitions=3):
            await execute(kafka, "INSERT INTO posts VALUES (1, 'a')")
            await written.until(1)

    asyncio.run(execute(kafka, "CREATE TABLE notes (id int PRIMARY KEY)"))
    asyncio.run(declare_events(kafka, tables=["notes"]))
    name = f"kafka topic {written.name('notes')}"
    missing = checked(kafka)[name]
    assert (missing.ok, missing.required) == (False, False)
    assert missing.remedy == (
        f"kafka-topics.sh --create --topic {written.name('notes')} --partitions 8"
    )
    partial = checked(kafka)["events of public.notes"]
    assert not partial.ok
    assert partial.remedy == 'ALTER TABLE "public"."notes" REPLICA IDENTITY FULL;'
    asyncio.run(write())
    found = checked(kafka)
    assert found["kafka reachable"].ok
    assert found[f"kafka topic {written.name()}"].detail == (
        "3 partitions, 1,048,588 bytes a message"
    )
    assert found["events of public.posts"].ok
    away = with_kafka(kafka, {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"})
    unreached = checked(away)["kafka reachable"]
    assert not unreached.ok
    assert unreached.remedy == "start the broker, or correct KAFKA_BOOTSTRAP_SERVERS"
    refused = checked(with_kafka(kafka, kafka_server.settings_of("admin", "wrong password")))
    assert "refuses the credentials" in refused["kafka reachable"].detail
