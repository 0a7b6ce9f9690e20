"""The topics that are written into a real Kafka, read by clients that nobody here wrote."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import NewTopic

from tests import node
from tests.integration.events.written import Topics, with_kafka, writing
from tests.integration.pipeline import execute
from tests.kafka import KafkaServer
from triggerkit.settings import Settings

PACKAGE = "kafkajs@2.2"

TABLE = """
CREATE TABLE posts (id bigint PRIMARY KEY, title text);
ALTER TABLE posts REPLICA IDENTITY FULL
"""
MEMBERS = "CREATE TABLE members (team int, name text, PRIMARY KEY (team, name))"

HEADERS = {"lsn", "idx", "action", "xid", "traceparent"}

#: A number of partitions that is none of a hash's own.
PARTITIONS = 7


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the package."""
    return node.install(tmp_path_factory.mktemp("node"), PACKAGE)


def write(
    settings: Settings,
    server: KafkaServer,
    *changes: str,
    posts: int,
    members: int,
    **given: str,
) -> Topics:
    """Have a stream write so many messages of changes of posts and members."""
    kafka = with_kafka(settings, server.settings(**given))
    topics = Topics(server, kafka)

    async def scenario() -> None:
        declared = {"tables": ["posts", "members"], "tombstones": True, "partitions": PARTITIONS}
        async with writing(kafka, TABLE, MEMBERS, **declared):
            await execute(kafka, *changes)
            await topics.until(posts)
            await topics.until(members, "members")

    asyncio.run(scenario())
    return topics


CHANGES = (
    "INSERT INTO posts VALUES (1, 'a'), (2, 'b')",
    "UPDATE posts SET title = 'ä' WHERE id = 1",
    "UPDATE posts SET id = 3 WHERE id = 2",
    "DELETE FROM posts WHERE id = 1",
    "INSERT INTO members VALUES (1, 'Ünï\"c'), (2, '日本')",
)

#: What each key of the posts is to have: events, and None for a tombstone.
EXPECTED = {
    "1": ["inserted", "updated", "deleted", None],
    "2": ["inserted", "deleted", None],
    "3": ["inserted"],
}


def check(messages: list[dict[str, Any]], topics: Topics) -> None:
    """See that messages, those of each partition in order, are those of `CHANGES`."""
    posts = [m for m in messages if m["topic"] == topics.name()]
    by_key: dict[str, list[str | None]] = {}
    for message in posts:
        value = None if message["value"] is None else orjson.loads(message["value"])
        by_key.setdefault(message["key"], []).append(value and value["event"])
        assert message["headers"].keys() - {"previous_key"} == HEADERS
        if value is not None:
            assert value["id"] == message["key"]
    assert by_key == EXPECTED
    (moved,) = [m for m in posts if "previous_key" in m["headers"]]
    assert (moved["key"], moved["headers"]["previous_key"]) == ("3", "2")
    (updated,) = [m for m in posts if m["headers"]["action"] == "update"]
    assert orjson.loads(updated["value"])["data"]["title"] == "ä"
    members = {m["key"] for m in messages if m["topic"] == topics.name("members")}
    assert members == {'["1","Ünï\\"c"]', '["2","日本"]'}


@pytest.mark.parametrize("given", [{}, {"KAFKA_COMPRESSION_TYPE": "gzip"}], ids=["plain", "gzip"])
def test_kafkajs_reads_keys_headers_and_tombstones(
    settings: Settings, kafka_server: KafkaServer, installed: Path, given: dict[str, str]
) -> None:
    topics = write(settings, kafka_server, *CHANGES, posts=8, members=2, **given)
    names = [topics.name(), topics.name("members")]
    found = node.run(installed, "kafkajs.mjs", kafka_server.servers, "10", *names)
    check(found, topics)


def test_a_plain_consumer_of_confluent_reads_the_same(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    topics = write(settings, kafka_server, *CHANGES, posts=8, members=2)
    consumer = Consumer(
        {
            "bootstrap.servers": kafka_server.servers,
            "group.id": f"plain-{topics.label}",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topics.name(), topics.name("members")])
    found: list[dict[str, Any]] = []
    try:
        while len(found) < 10:
            message = consumer.poll(30)
            assert message is not None, "the broker does not answer"
            assert message.error() is None, message.error()
            found.append(shown(message))
    finally:
        consumer.close()
    check(found, topics)


def shown(message: Any) -> dict[str, Any]:
    """A message as the script of kafkajs prints it."""
    key, value = message.key(), message.value()
    return {
        "topic": message.topic(),
        "key": None if key is None else key.decode(),
        "value": None if value is None else value.decode(),
        "headers": {name: one.decode() for name, one in message.headers()},
    }


def test_a_producer_of_others_puts_the_same_keys_into_the_same_partitions(
    settings: Settings, kafka_server: KafkaServer, installed: Path
) -> None:
    rows = ", ".join(f"({n}, 'Nämé {n} 日本 {'x' * (n % 9)}')" for n in range(60))
    topics = write(
        settings,
        kafka_server,
        "INSERT INTO posts SELECT n, 'a' FROM generate_series(1, 40) n",
        f"INSERT INTO members VALUES {rows}",
        posts=40,
        members=60,
    )
    ours = {
        m.key: m.partition for table in ("posts", "members") for m in topics.read(table) if m.key
    }
    assert len(ours) == 100
    control = f"control.{topics.label}"
    admin = kafka_server.admin
    for answer in admin.create_topics([NewTopic(control, PARTITIONS)]).values():
        answer.result(timeout=20)
    keys = orjson.dumps(list(ours)).decode()
    theirs = node.run(installed, "kafkajs.mjs", kafka_server.servers, "produce", control, keys)
    assert theirs == ours
    assert len(set(ours.values())) == PARTITIONS
