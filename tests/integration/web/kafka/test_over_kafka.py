"""The API over a real Kafka, where others write too, and where topics come and go."""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import NewPartitions

from tests.conformance.events.world import (
    POSTS,
    USERS,
    EventsWorld,
    drop_topics,
    events_over,
    events_over_kafka,
    events_over_the_log,
    ids,
    make_topics,
)
from tests.kafka import KafkaServer
from triggerkit.settings import Settings

MANUAL = {"kafka_enable_auto_commit": "false"}

FROM_THE_FIRST = {"topic": POSTS, "partition": 0, "offset": 0, "timeout": 0}


@pytest.fixture
def world(settings: Settings, kafka_server: KafkaServer) -> Iterator[EventsWorld]:
    """Events over Kafka."""
    with events_over_kafka(settings, kafka_server) as world:
        yield world


def produce(server: KafkaServer, *messages: dict[str, Any], **properties: str) -> None:
    """Write as another program does, into the first partition unless a message says otherwise."""
    producer = Producer({"bootstrap.servers": server.servers, "log_level": "2", **properties})
    for message in messages:
        producer.produce(**{"topic": POSTS, "partition": 0, **message})
    assert producer.flush(30) == 0


def transactional(server: KafkaServer, *values: str, commits: bool) -> None:
    """Write in a transaction, which is committed or aborted."""
    name = f"tests-{secrets.token_hex(4)}"
    producer = Producer(
        {"bootstrap.servers": server.servers, "transactional.id": name, "log_level": "2"}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for value in values:
        producer.produce(POSTS, value, partition=0)
    assert producer.flush(30) == 0
    end = producer.commit_transaction if commits else producer.abort_transaction
    end(30)


def values(messages: list[dict[str, Any]]) -> list[Any]:
    return [message["value"] for message in messages]


def test_what_others_write_is_read_as_it_is(world: EventsWorld, kafka_server: KafkaServer) -> None:
    binary = b"\xff\x00\xfe"
    produce(
        kafka_server,
        {"key": "1", "value": None},
        {"value": "", "key": ""},
        {"value": "not JSON", "headers": [("none", None), ("bytes", binary), ("text", "é")]},
        {"value": binary, "key": binary, "timestamp": 5},
    )
    first, empty, text, bytes_ = world.done("POST", "fetch", FROM_THE_FIRST)
    assert (first["key"], first["value"], first["headers"]) == ("1", None, [])
    assert (empty["key"], empty["value"]) == ("", "")
    assert (text["key"], text["value"]) == (None, "not JSON")
    encoded = b64encode(binary).decode()
    assert text["headers"] == [
        {"key": "none", "value": None},
        {"key": "bytes", "value": encoded, "base64": True},
        {"key": "text", "value": "é"},
    ]
    assert (bytes_["key"], bytes_["value"], bytes_["timestamp"]) == (encoded, encoded, 5)
    assert bytes_["base64"] == ["key", "value"]
    assert "base64" not in first.keys() | empty.keys() | text.keys()
    found = world.consume()
    assert [message["offset"] for message in found] == [0, 1, 2, 3]


def test_a_group_goes_on_over_what_transactions_leave_out(
    world: EventsWorld, kafka_server: KafkaServer
) -> None:
    transactional(kafka_server, "a", "b", commits=True)
    transactional(kafka_server, "dropped", commits=False)
    transactional(kafka_server, "c", commits=True)
    assert values(world.consume(headers=MANUAL)) == ["a", "b", "c"]
    assert world.consume(headers=MANUAL) == []
    world.done("POST", "commit/g/one")
    world.done("POST", "delete-consumer/g/one")
    produce(kafka_server, {"value": "d"})
    assert values(world.consume("two", timeout=5000, headers=MANUAL)) == ["d"]
    (latest,) = world.done("POST", "offsets/latest", {"topic": POSTS, "partition": 0})
    # Three messages that count, one that does not, three markers, and one more.
    assert latest["offset"] == 8
    assert values(world.done("POST", "fetch", FROM_THE_FIRST)) == ["a", "b", "c", "d"]


def test_what_a_transaction_has_not_committed_is_not_read_yet(
    world: EventsWorld, kafka_server: KafkaServer
) -> None:
    name = f"tests-{secrets.token_hex(4)}"
    producer = Producer(
        {"bootstrap.servers": kafka_server.servers, "transactional.id": name, "log_level": "2"}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(POSTS, "held", partition=0)
    assert producer.flush(30) == 0
    assert world.done("POST", "fetch", FROM_THE_FIRST) == []
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(world.done, "POST", "fetch", {**FROM_THE_FIRST, "timeout": 10_000})
        producer.commit_transaction(30)
        assert values(waiting.result(15)) == ["held"]


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd", "snappy"])
def test_compressed_messages_are_read(
    world: EventsWorld, kafka_server: KafkaServer, codec: str
) -> None:
    produce(
        kafka_server, *({"value": f"{n}" * 50} for n in range(50)), **{"compression.type": codec}
    )
    assert values(world.done("POST", "fetch", FROM_THE_FIRST)) == [f"{n}" * 50 for n in range(50)]


def test_large_messages_come_a_few_at_a_time(world: EventsWorld, kafka_server: KafkaServer) -> None:
    make_topics(kafka_server, POSTS, max_message_bytes="6000000")
    large = ["x" * 5_000_000, "y" * 600_000, "z" * 600_000, "w" * 600_000]
    produce(kafka_server, *({"value": one} for one in large), **{"message.max.bytes": "6000000"})
    seen: list[dict[str, Any]] = []
    answers = 0
    while len(seen) < 4:
        place = {**FROM_THE_FIRST, "offset": len(seen), "timeout": 5000}
        seen += world.done("POST", "fetch", place)
        answers += 1
    assert values(seen) == large
    assert answers == 3
    found = [values(world.consume(timeout=5000)) for _ in range(3)]
    assert [len(one) for one in found] == [1, 2, 1]


def test_one_partition_that_has_much_keeps_no_other_from_its_turn(
    world: EventsWorld, kafka_server: KafkaServer
) -> None:
    produce(kafka_server, *({"value": "much"} for _ in range(5000)))
    produce(kafka_server, {"value": "little", "partition": 1})
    for _ in range(12):
        if "little" in values(world.consume()):
            return
    raise AssertionError("the other partition gets no turn")


def test_after_more_fetches_than_readers_one_answer_still_has_all_topics(
    world: EventsWorld,
) -> None:
    world.write(range(1, 21))
    world.write(range(101, 111), table="users")
    places = [{"topic": t, "partition": p, "offset": 0} for t in (POSTS, USERS) for p in range(8)]
    with ThreadPoolExecutor(16) as threads:
        asked = [threads.submit(world.done, "POST", "fetch", place) for place in places]
        each = [number for one in asked for number in ids(one.result(30))]
    both = ids(world.done("POST", "fetch", {"topicPartitionOffsets": places, "timeout": 0}))
    assert sorted(each) == sorted(both) == [*range(1, 21), *range(101, 111)]


def test_what_retention_took_is_told_and_a_group_goes_on_after_it(
    world: EventsWorld, kafka_server: KafkaServer
) -> None:
    produce(kafka_server, *({"value": f"{n}"} for n in range(10)))
    assert len(world.consume(headers=MANUAL)) == 10
    place = TopicPartition(POSTS, 0, 4)
    admin = kafka_server.admin
    for answer in admin.delete_records([place]).values():
        answer.result(timeout=20)
    refused = world.call("POST", "fetch", FROM_THE_FIRST)
    assert refused.status == 400
    assert "partition 0, is out of range: the earliest is 4, the latest 10" in refused.json["error"]
    from_four = {**FROM_THE_FIRST, "offset": 4}
    assert values(world.done("POST", "fetch", from_four)) == [str(n) for n in range(4, 10)]
    assert world.done("POST", "offsets/earliest", {"topic": POSTS})[0]["offset"] == 4
    world.done("POST", "delete-consumer/g/one")
    assert values(world.consume("two")) == [str(n) for n in range(4, 10)]
    strict = world.call(
        "GET", f"consume/other/one/{POSTS}?timeout=0", None, kafka_auto_offset_reset="none"
    )
    assert strict.status == 400


def test_a_topic_that_is_not_there_yet_is_as_an_empty_one(
    world: EventsWorld, kafka_server: KafkaServer
) -> None:
    drop_topics(kafka_server, POSTS)
    with ThreadPoolExecutor(1) as threads:
        path = f"consume/g/one/{POSTS}?timeout=30000"
        waiting = threads.submit(world.done, "GET", path)
        world.until_consuming()
        assert world.done("GET", "topics")[POSTS] == 8
        assert world.done("POST", "fetch", FROM_THE_FIRST) == []
        make_topics(kafka_server, POSTS)
        world.write([1])
        assert ids(waiting.result(20)) == [1]


def test_a_topic_that_is_deleted_and_made_anew_is_read_from_its_beginning(
    world: EventsWorld, kafka_server: KafkaServer
) -> None:
    world.write(range(1, 21))
    assert len(world.consume()) == 20
    drop_topics(kafka_server, POSTS)
    for _ in range(3):
        assert world.consume(timeout=300) == []
    answer = world.call("POST", "fetch", {**FROM_THE_FIRST, "offset": 3})
    assert answer.status == 400
    assert "the earliest is 0, the latest 0" in answer.json["error"]
    make_topics(kafka_server, POSTS, partitions=3)
    world.write([21, 22, 23])
    found: list[int] = []
    for _ in range(10):
        found += ids(world.consume(timeout=1000))
        if len(found) >= 3:
            break
    assert sorted(found) == [21, 22, 23]
    assert world.done("GET", "topics")[POSTS] == 3


def test_who_waits_at_a_topic_that_is_deleted_is_not_left_waiting_beyond_its_time(
    world: EventsWorld, kafka_server: KafkaServer
) -> None:
    world.write([1])
    (message,) = world.fetch_all()
    place = {**message, "offset": message["offset"] + 1, "timeout": 3000}
    with ThreadPoolExecutor(2) as threads:
        consuming = threads.submit(world.consume, timeout=3000, headers=MANUAL)
        assert ids(consuming.result(10)) == [1]
        consuming = threads.submit(world.consume, timeout=3000, headers=MANUAL)
        fetching = threads.submit(world.done, "POST", "fetch", place)
        drop_topics(kafka_server, POSTS)
        assert consuming.result(12) == []
        assert fetching.result(12) == []


def test_topics_of_others_are_not_read(world: EventsWorld, kafka_server: KafkaServer) -> None:
    make_topics(kafka_server, "secrets")
    assert "secrets" not in world.done("GET", "topics")
    assert world.call("POST", "fetch", {"topic": "secrets"}).status == 404
    assert world.call("GET", "consume/g/one/secrets").status == 404
    assert world.call("GET", "consume/g/one/__consumer_offsets").status == 404
    drop_topics(kafka_server, "secrets")


def test_a_topic_has_as_many_partitions_as_in_kafka_also_when_it_gets_more(
    world: EventsWorld, kafka_server: KafkaServer
) -> None:
    assert world.consume() == []
    more = NewPartitions(POSTS, 12)
    admin = kafka_server.admin
    for answer in admin.create_partitions([more]).values():
        answer.result(timeout=20)
    produce(kafka_server, {"value": "new", "partition": 11})
    for _ in range(20):
        if values(world.consume(timeout=1000)) == ["new"]:
            break
    else:
        raise AssertionError("the new partition is not read")
    assert world.done("GET", "topics")[POSTS] == 12


def test_groups_over_the_log_and_over_kafka_are_apart(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    with events_over_the_log(settings) as over_log:
        over_log.write(range(1, 11))
        assert len(over_log.consume()) == 10
        # Asking for more, it has them.
        assert over_log.consume() == []
    make_topics(kafka_server, POSTS)
    both = Settings.parse({**settings.environment(), **kafka_server.settings()})
    with events_over(both) as world:
        assert world.done("GET", "consumers") == []
        produce(kafka_server, {"value": "first"})
        assert values(world.consume()) == ["first"]
        (group,) = world.done("GET", "consumers")
        assert group["name"] == "g"
    with events_over(settings) as over_log:
        assert over_log.consume() == []
        over_log.written = 10
        over_log.write([11])
        assert ids(over_log.consume()) == [11]
