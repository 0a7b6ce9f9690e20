"""The topics of events: what their deletes carry, and whether Kafka has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import psycopg

from triggerkit.errors import CannotConnect, ConfigurationError
from triggerkit.events.kafka.broker import Broker
from triggerkit.events.kafka.faults import KafkaFault, remedy_of
from triggerkit.events.topics import Topic, topics
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.checks.check import Check, quoted


async def check_events(settings: Settings) -> list[Check]:
    """Check the topics that were applied; none without them."""
    try:
        async with await connect(settings.state_dsn, "triggerkit check") as state:
            cursor = await state.execute("SELECT to_regclass('triggerkit.topics') IS NOT NULL")
            found = await topics(state) if await cursor.fetchone() == (True,) else []
    except (CannotConnect, psycopg.Error):
        # That is a fault of its own, which is told with the state's.
        return []
    checks = [_old_rows(topic) for topic in found]
    if settings.kafka and found:
        checks += [check async for check in _of_kafka(settings, found)]
    return checks


def _old_rows(topic: Topic) -> Check:
    if topic.carries_old_rows:
        return Check(f"events of {topic.table_name}", True, "deleted events have the whole row")
    return Check(
        f"events of {topic.table_name}",
        False,
        "the WAL carries only the key of deleted rows: a deleted event has the row's last version "
        "in the log, if it is there",
        f"ALTER TABLE {quoted(topic.schema, topic.table)} REPLICA IDENTITY FULL;",
        required=False,
    )


async def _of_kafka(settings: Settings, found: Sequence[Topic]) -> AsyncIterator[Check]:
    servers = settings.kafka_bootstrap_servers or ""
    try:
        there = await Broker(settings.kafka).look(found)
    except ConfigurationError as error:
        yield Check("kafka reachable", False, str(error), "correct the settings KAFKA_*")
        return
    except KafkaFault as fault:
        yield Check("kafka reachable", False, str(fault), remedy_of(str(fault)))
        return
    yield Check("kafka reachable", True, servers)
    for topic in found:
        known = there[topic.name]
        if known is None:
            remedy = f"kafka-topics.sh --create --topic {topic.name} --partitions"
            yield Check(
                f"kafka topic {topic.name}",
                False,
                "it is not there yet; the stream makes it with the first event, if it may",
                f"{remedy} {topic.partitions}",
                required=False,
            )
        else:
            detail = f"{known.partitions} partitions, {known.max_message_bytes:,} bytes a message"
            yield Check(f"kafka topic {topic.name}", True, detail)
