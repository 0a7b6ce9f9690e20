"""What is sent again after a fault: of each key all from the first that the broker lacks."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import orjson
import pytest

from tests.unit.events.entries import POSTS, entry
from triggerkit.events.event import EventRenderer
from triggerkit.events.kafka.faults import TOO_LARGE, remedy_of, said
from triggerkit.events.kafka.producer import Line
from triggerkit.events.kafka.record import Record, records_of


def record(offset: int, key: str, value: bytes | None = b"{}") -> Record:
    return Record(offset, "t", key, value, (), 0)


def line() -> Line:
    async def made() -> Line:
        return Line(asyncio.get_running_loop())

    return asyncio.run(made())


def answered(found: Line, record: Record, error: Any = None) -> None:
    found.handing_over()
    found.answered(record, error, None)


def test_what_the_broker_has_is_not_sent_again() -> None:
    records = [record(1, "a"), record(2, "b"), record(3, "a")]
    found = line()
    assert found.left_of(records) == records
    answered(found, records[0])
    assert found.left_of(records) == records[1:]


def test_of_a_key_all_from_the_first_that_is_missing_is_sent_again() -> None:
    records = [record(1, "a"), record(2, "a"), record(3, "b"), record(4, "a")]
    found = line()
    answered(found, records[0])
    answered(found, records[1], cast("Any", "refused"))
    answered(found, records[2])
    answered(found, records[3])
    assert found.left_of(records) == [records[1], records[3]]


@pytest.mark.parametrize("silent", [False, True])
def test_a_broker_that_is_slow_is_waited_for_and_one_that_is_silent_is_not(silent: bool) -> None:
    async def scenario() -> bool:
        loop = asyncio.get_running_loop()
        found, records = Line(loop), [record(number, "a") for number in range(6)]
        found.handing_over(len(records) + silent)
        for number, one in enumerate(records):
            loop.call_later(0.1 * number, found.answered, one, None, None)
        return await found.settle(0.3)

    assert asyncio.run(scenario()) is not silent


def test_a_tombstone_is_told_from_the_event_before_it() -> None:
    records = [record(1, "a"), record(1, "a", None)]
    found = line()
    answered(found, records[0])
    assert found.left_of(records) == [records[1]]


def test_a_delete_has_a_tombstone_where_its_topic_wants_one() -> None:
    events = [EventRenderer([POSTS]).event(entry(action=a)) for a in ("insert", "delete")]
    made = list(records_of(events, frozenset([POSTS.name])))
    assert [r.value is None for r in made] == [False, False, True]
    assert made[2].key == made[1].key == "1"
    assert len(list(records_of(events))) == 2


def test_the_size_of_a_record_counts_all_of_it() -> None:
    value = orjson.dumps({"title": "x" * 1000})
    small = Record(1, "t", "k", value, (("lsn", "1"),), 0).size_bytes
    assert len(value) < small < len(value) + 200
    assert Record(1, "t", "ü" * 10, value, (), 0).size_bytes > len(value) + 20


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        (
            said("the topic does not exist", "", "triggerkit.a.posts", 3),
            "kafka-topics.sh --create --topic triggerkit.a.posts --partitions 3",
        ),
        (
            said(TOO_LARGE, "20 bytes", "triggerkit.a.posts"),
            (
                "kafka-configs.sh --alter --topic triggerkit.a.posts --add-config "
                "max.message.bytes=BYTES"
            ),
        ),
        (
            said("the broker is not reached", "connection refused"),
            "start the broker, or correct KAFKA_BOOTSTRAP_SERVERS",
        ),
        ("the endpoint answered 500", None),
    ],
)
def test_a_fault_tells_its_remedy(fault: str, remedy: str | None) -> None:
    assert remedy_of(fault) == remedy
