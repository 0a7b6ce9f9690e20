"""Kafka is away, or lets nobody in: the API says so, holds up nothing, and goes on by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from tests.conformance.events.world import (
    POSTS,
    USERS,
    EventsWorld,
    events_over,
    events_over_kafka,
    ids,
    make_topics,
    prepare,
)
from tests.kafka import KafkaServer
from triggerkit.settings import Settings

MANUAL = {"kafka_enable_auto_commit": "false"}

FETCH = {"topic": POSTS, "partition": 0, "timeout": 0}


@pytest.fixture
def world(settings: Settings, kafka_server: KafkaServer) -> Iterator[EventsWorld]:
    """Events over Kafka."""
    with events_over_kafka(settings, kafka_server) as world:
        yield world


@pytest.fixture
def prepared(settings: Settings, kafka_server: KafkaServer) -> Settings:
    """Settings of events whose topics are there."""
    prepare(settings)
    make_topics(kafka_server, POSTS, USERS)
    return settings


def as_user(settings: Settings, server: KafkaServer, user: str, password: str | None) -> Settings:
    """Settings by which `serve` is a user of Kafka."""
    return Settings.parse({**settings.environment(), **server.settings_of(user, password)})


def until_answered(world: EventsWorld) -> None:
    """Wait until Kafka is read again."""
    deadline = time.monotonic() + 30
    while world.call("GET", "topics").status != 200:
        assert time.monotonic() < deadline, "it does not come back"


def test_while_the_broker_is_away_it_is_told_and_nothing_is_lost(
    world: EventsWorld, kafka_server: KafkaServer
) -> None:
    world.write(range(1, 11))
    assert len(world.consume(headers=MANUAL)) == 10
    world.done("POST", "commit/g/one")
    with ThreadPoolExecutor(2) as threads:
        path = f"consume/g/one/{POSTS}?timeout=14000"
        waiting = threads.submit(world.call, "GET", path, None, **MANUAL)
        world.until_consuming()
        with kafka_server.away(force=True):
            refused = waiting.result(20)
            assert refused.status == 503
            assert "Kafka: the broker is not reached" in refused.json["error"]
            assert "correct KAFKA_BOOTSTRAP_SERVERS" in refused.json["error"]
            assert refused.headers["retry-after"] == "1"
            for method, path, body in (
                ("POST", "fetch", FETCH),
                ("GET", f"consume/g/one/{POSTS}?timeout=0", None),
                ("POST", "commit/g/one", None),
                ("POST", "committed/g/one", {"topic": POSTS}),
                ("POST", "offsets/latest", {"topic": POSTS}),
                ("POST", "delete-consumer/g/one", None),
                ("GET", "topics", None),
                ("GET", "consumers", None),
            ):
                assert world.call(method, path, body).status == 503, path
    until_answered(world)
    world.write([11])
    assert ids(world.consume(timeout=5000, headers=MANUAL)) == [11]


def test_many_who_ask_while_the_broker_is_away_hold_up_nothing_else(
    world: EventsWorld, kafka_server: KafkaServer
) -> None:
    world.done("GET", "topics")
    with kafka_server.away(force=True), ThreadPoolExecutor(40) as threads:
        asked = [threads.submit(world.call, "POST", "fetch", FETCH) for _ in range(40)]
        slowest = 0.0
        while not all(one.done() for one in asked):
            began = time.monotonic()
            assert world.site.request("GET", "/healthz").status == 200
            assert world.site.request("GET", "/kafka/topics").status == 401
            slowest = max(slowest, time.monotonic() - began)
        assert {one.result().status for one in asked} == {503}
        assert slowest < 2
    until_answered(world)


def test_a_broker_that_is_away_at_the_start_is_found_when_it_is_there(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    with kafka_server.away():
        prepare(settings)
        both = Settings.parse({**settings.environment(), **kafka_server.settings()})
        serving = events_over(both)
        world = serving.__enter__()
        assert world.call("GET", "topics").status == 503
    try:
        until_answered(world)
        make_topics(kafka_server, POSTS, USERS)
        world.write([1])
        assert ids(world.consume(timeout=5000)) == [1]
    finally:
        serving.__exit__(None, None, None)


def test_wrong_credentials_are_told_with_the_settings_to_correct(
    prepared: Settings, kafka_server: KafkaServer
) -> None:
    with events_over(as_user(prepared, kafka_server, "admin", "a wrong password")) as world:
        answer = world.call("GET", "topics")
        assert answer.status == 503
        assert "the broker refuses the credentials" in answer.json["error"]
        assert "correct KAFKA_SASL_USERNAME" in answer.json["error"]
        assert "a wrong password" not in answer.json["error"]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("KAFKA_SECURITY_PROTOCOL", "nonsense", "Kafka's client refuses a setting"),
        ("KAFKA_SSL_CA_LOCATION", "/nowhere.pem", "Kafka's client refuses a setting"),
        ("KAFKA_ENABLE_IDEMPOTENCE", "false", "KAFKA_ENABLE_IDEMPOTENCE cannot be set"),
    ],
)
def test_a_setting_that_is_wrong_is_named(
    settings: Settings, name: str, value: str, told: str
) -> None:
    prepare(settings)
    given = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "KAFKA_SECURITY_PROTOCOL": "ssl"}
    with events_over(Settings.parse({**settings.environment(), **given, name: value})) as world:
        for _ in range(2):
            answer = world.call("GET", "topics")
            assert answer.status == 503
            assert told in answer.json["error"]


def test_what_may_not_be_read_is_told_with_the_acl_and_read_once_it_is_allowed(
    prepared: Settings, kafka_server: KafkaServer
) -> None:
    with events_over(as_user(prepared, kafka_server, "guest", None)) as world:
        answer = world.call("POST", "fetch", FETCH)
        assert answer.status == 503
        remedy = f"kafka-acls.sh --add --allow-principal User:NAME --operation Read --topic {POSTS}"
        assert f"Kafka: the topic may not be read (topic {POSTS}); {remedy}" == answer.json["error"]
        assert world.done("GET", "topics") == {}
        _allow(kafka_server, AclOperation.DESCRIBE)
        try:
            _until_listed(world)
            _produce(kafka_server)
            answer = world.call("POST", "fetch", FETCH)
            assert answer.status == 503
            assert remedy in answer.json["error"]
            # Others are answered all the same.
            assert world.done("GET", "topics") == {POSTS: 8}
            _allow(kafka_server, AclOperation.READ)
            deadline = time.monotonic() + 20
            while (answer := world.call("POST", "fetch", FETCH)).status != 200:
                assert time.monotonic() < deadline
            assert [message["value"] for message in answer.json] == ["x"]
            path = f"consume/g/one/{POSTS}?timeout=5000"
            found = world.done("GET", path, None, kafka_auto_offset_reset="earliest")
            assert [message["value"] for message in found] == ["x"]
        finally:
            _disallow(kafka_server)


def _until_listed(world: EventsWorld) -> None:
    deadline = time.monotonic() + 20
    while world.done("GET", "topics") != {POSTS: 8}:
        assert time.monotonic() < deadline


def _produce(server: KafkaServer) -> None:
    producer = Producer({"bootstrap.servers": server.servers})
    producer.produce(POSTS, "x", partition=0)
    assert producer.flush(20) == 0


def _allow(server: KafkaServer, operation: AclOperation) -> None:
    acl = AclBinding(
        ResourceType.TOPIC, POSTS, ResourcePatternType.LITERAL, "User:guest", "*", operation,
        AclPermissionType.ALLOW,
    )  # fmt: skip
    admin = server.admin
    for answer in admin.create_acls([acl]).values():
        answer.result(timeout=20)


def _disallow(server: KafkaServer) -> None:
    acls = AclBindingFilter(
        ResourceType.TOPIC, POSTS, ResourcePatternType.LITERAL, "User:guest", "*",
        AclOperation.ANY, AclPermissionType.ANY,
    )  # fmt: skip
    admin = server.admin
    for answer in admin.delete_acls([acls]).values():
        answer.result(timeout=20)
