"""What a topic does not take is told with its remedy, and holds up no more than it has to."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.events.test_kafka_faults import configure, failing, make
from tests.integration.events.written import (
    TABLE,
    Topics,
    declare_events,
    one,
    until,
    with_kafka,
    writing,
)
from tests.integration.parked import until_states
from tests.integration.pipeline import execute
from tests.kafka import KafkaServer
from triggerkit.errors import ConfigurationError
from triggerkit.settings import Settings

COMPACTED = {"cleanup.policy": "compact"}


@pytest.mark.parametrize("may_look", [True, False])
def test_a_truncate_is_set_aside_where_the_topic_takes_no_message_without_a_key(
    settings: Settings, kafka: Settings, kafka_server: KafkaServer, may_look: bool
) -> None:
    written = Topics(kafka_server, settings)
    make(kafka_server, written.name(), config=COMPACTED)
    if not may_look:
        # May write, and not read how the topic is set up.
        kafka_server.allow("guest", written.name())
        kafka = with_kafka(settings, kafka_server.settings_of("guest"))

    async def scenario() -> None:
        async with writing(kafka, TABLE, tombstones=True):
            await execute(kafka, "INSERT INTO posts VALUES (1, 'a')")
            await execute(kafka, "TRUNCATE posts")
            await execute(kafka, "INSERT INTO posts VALUES (2, 'a')", "DELETE FROM posts")
            found = await written.until(4)
            await until_states(kafka, "dead")
            reason = one(kafka, "SELECT reason FROM triggerkit.parked")
        assert [m.event for m in found] == ["inserted", "inserted", "deleted", None]
        assert f"takes no message without a key (topic {written.name()})" in reason

    asyncio.run(scenario())


def test_a_topic_that_refuses_the_time_of_an_event_is_told_and_written_once_it_does_not(
    kafka: Settings, written: Topics, kafka_server: KafkaServer
) -> None:
    make(kafka_server, written.name(), config={"message.timestamp.before.max.ms": "1"})

    async def scenario() -> None:
        async with writing(kafka, TABLE):
            await execute(
                kafka,
                "INSERT INTO posts VALUES (1, 'a'), (2, 'a')",
                "UPDATE posts SET title = 'b'",
            )
            found = await until(
                lambda: failing(kafka, "the topic does not take an event as it is"), "problem"
            )
            assert "message.timestamp.type=LogAppendTime" in found.remedy
            kind = ("message.timestamp.type", "LogAppendTime")
            await asyncio.to_thread(configure, kafka_server, written.name(), *kind)
            messages = await written.until(4)
        for key in ("1", "2"):
            assert [m.event for m in messages if m.key == key] == ["inserted", "updated"]

    asyncio.run(scenario())


def test_tables_whose_topics_are_one_to_kafka_are_refused_where_they_are_declared(
    kafka: Settings, settings: Settings
) -> None:
    tables = [
        'CREATE SCHEMA "order"',
        'CREATE TABLE "order".items (id bigint PRIMARY KEY)',
        "CREATE TABLE order_items (id bigint PRIMARY KEY)",
    ]

    async def scenario() -> None:
        await execute(kafka, *tables)
        for given in (["order.items", "order_items"], "*"):
            with pytest.raises(ConfigurationError, match="to it a dot is an underscore"):
                await declare_events(kafka, tables=given, database="app")
        # The embedded log has both.
        assert await declare_events(settings, tables="*", database="app")

    asyncio.run(scenario())


def test_a_topic_whose_name_is_too_like_another_s_is_told(
    kafka: Settings, written: Topics, kafka_server: KafkaServer
) -> None:
    make(kafka_server, written.name().replace(".", "_"))

    async def scenario() -> None:
        async with writing(kafka, TABLE):
            await execute(kafka, "INSERT INTO posts VALUES (1, 'a')")
            found = await until(
                lambda: failing(kafka, "the topic's name is too like another's"), "problem"
            )
            assert "set database in [events]" in found.remedy

    asyncio.run(scenario())
