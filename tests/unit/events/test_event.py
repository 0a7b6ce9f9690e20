"""Events have the shape that is promised, whatever the change was."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.events.entries import POSTS, entry
from triggerkit.errors import ConfigurationError
from triggerkit.events.event import Event, EventRenderer
from triggerkit.events.topics import Topic, topic_name


def event_of(topic: Topic = POSTS, old: bytes | None = None, **values: Any) -> Event:
    return EventRenderer([topic]).event(entry(**values), old)


def value_of(event: Event) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(event.value)
    return value


def test_an_inserted_event() -> None:
    event = event_of()
    assert (event.topic, event.key) == ("triggerkit.blog.posts", "1")
    assert (event.partition, event.offset, event.timestamp) == (3, 4711, 1793223561127)
    assert value_of(event) == {
        "collection": "posts",
        "created_at": "2026-10-28T21:39:21.127470Z",
        "event": "inserted",
        "id": "1",
        "data": {"id": 1, "title": "a"},
        "table": "posts",
    }


def test_an_updated_event_has_the_prior_values_of_what_changed() -> None:
    event = event_of(action="update", changes=b'{"title":"old"}')
    assert value_of(event)["event"] == "updated"
    assert value_of(event)["changes"] == {"title": "old"}
    assert value_of(event_of(action="update"))["changes"] == {}


def test_a_deleted_event_has_the_row_of_the_wal_or_of_the_log() -> None:
    assert value_of(event_of(action="delete"))["data"] == {"id": 1, "title": "a"}
    deleted = event_of(action="delete", record=b'{"id":1}', old=b'{"id":1,"title":"last"}')
    assert value_of(deleted) == {
        "collection": "posts",
        "created_at": "2026-10-28T21:39:21.127470Z",
        "event": "deleted",
        "id": "1",
        "data": {"id": 1, "title": "last"},
        "table": "posts",
    }


def test_a_truncated_event_has_neither_id_nor_data() -> None:
    event = event_of(action="truncate", key="[]", record=None)
    assert event.key is None
    assert value_of(event) == {
        "collection": "posts",
        "created_at": "2026-10-28T21:39:21.127470Z",
        "event": "truncated",
        "table": "posts",
    }


def test_a_row_that_was_read_is_inserted_where_it_goes() -> None:
    assert value_of(event_of(action="read"))["event"] == "inserted"


def test_a_composite_key_is_an_array_in_key_and_id() -> None:
    event = event_of(key='["7","a\\"b"]')
    assert event.key == '["7","a\\"b"]'
    assert value_of(event)["id"] == ["7", 'a"b']


@pytest.mark.parametrize("key", ["9223372036854775807", 'a"b\\ü', "", " ", "[1]", "\x00"])
def test_a_single_key_is_its_text(key: str) -> None:
    event = event_of(key=orjson.dumps([key]).decode())
    assert (event.key, value_of(event)["id"]) == (key, key)


def test_large_numbers_and_what_no_parser_takes_stay_as_they_are() -> None:
    record = b'{"id":9007199254740993,"doc":' + b"9" * 5000 + b',"n":1e400}'
    assert b'"data":' + record in event_of(record=record).value


def test_values_that_nobody_knows_are_named() -> None:
    assert value_of(event_of(unchanged=("body",)))["unchanged"] == ["body"]


def test_a_table_of_another_schema_is_a_collection_with_it() -> None:
    topic = Topic("triggerkit.blog.crm.posts", "blog", "crm", "posts")
    value = value_of(event_of(topic, schema="crm"))
    assert (value["collection"], value["table"]) == ("crm.posts", "posts")


def test_headers_are_the_identity_of_a_change() -> None:
    headers = dict(event_of().headers)
    assert {k: v for k, v in headers.items() if k != "traceparent"} == {
        "lsn": "123456790",
        "idx": "1",
        "action": "insert",
        "xid": "751",
    }
    assert headers["traceparent"] == dict(event_of().headers)["traceparent"]
    version, trace, span, flags = headers["traceparent"].split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "01")
    other = dict(event_of(position=4712, commit_idx=2).headers)["traceparent"]
    assert other.split("-")[1] == trace
    assert other.split("-")[2] != span


def test_a_changed_key_has_the_one_before() -> None:
    assert dict(event_of(changes=b'["0"]').headers)["previous_key"] == "0"
    composite = event_of(key='["1","b"]', changes=b'["1","a"]')
    assert dict(composite.headers)["previous_key"] == '["1","a"]'
    assert "previous_key" not in dict(event_of().headers)
    assert "changes" not in value_of(event_of(changes=b'["0"]'))


@pytest.mark.parametrize(
    "values",
    [
        {"table": "others"},
        {"schema": "crm"},
        {"consumer_id": 0, "action": "truncate", "record": b"12"},
        {"consumer_id": 4, "backfill_id": 2, "action": "read"},
        {"fault": "undecodable", "record": None},
    ],
)
def test_what_is_no_event_has_no_topic(values: dict[str, Any]) -> None:
    assert EventRenderer([POSTS]).topic_of(entry(**values)) is None


def test_topics_have_names_that_kafka_takes() -> None:
    assert topic_name("blog", "public", "posts") == "triggerkit.blog.posts"
    assert topic_name("blog", "crm", "posts") == "triggerkit.blog.crm.posts"
    assert topic_name("my blog", "public", "Größe 2") == "triggerkit.my_blog.Gr__e_2"
    with pytest.raises(ConfigurationError, match="name of 262 characters"):
        topic_name("b" * 245, "public", "posts")
