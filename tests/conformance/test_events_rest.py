"""The events REST API, stated once for whatever holds the events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from tests.conformance.events_world import (
    POSTS,
    USERS,
    EventsWorld,
    basic,
    events_world,
    ids,
)
from triggerkit.settings import Settings


@pytest.fixture(params=["log", "kafka"])
def world(settings: Settings, request: pytest.FixtureRequest) -> Iterator[EventsWorld]:
    """Events, and the API over them."""
    with events_world(request.param, settings, request) as world:
        yield world


def test_topics_are_listed_with_their_partitions(world: EventsWorld) -> None:
    assert world.done("GET", "topics") == {POSTS: 8, USERS: 8}


def test_a_message_has_the_shape_that_clients_expect(world: EventsWorld) -> None:
    world.write([1])
    (message,) = world.fetch_all()
    value = orjson.loads(message.pop("value"))
    headers = {header["key"]: header["value"] for header in message.pop("headers")}
    assert list(message) == ["topic", "partition", "offset", "timestamp", "key"]
    assert message["topic"] == POSTS
    assert message["key"] == "1"
    assert message["timestamp"] == 1793223540127
    assert value == {
        "collection": "posts",
        "created_at": "2026-10-28T21:39:00.127470Z",
        "event": "inserted",
        "id": "1",
        "data": {"id": 1, "title": "post 1"},
        "table": "posts",
    }
    assert headers["action"] == "insert"


def test_fetch_reads_from_an_offset_on_and_acknowledges_nothing(world: EventsWorld) -> None:
    world.write(range(1, 41))
    messages = world.fetch_all()
    assert sorted(ids(messages)) == list(range(1, 41))
    assert world.fetch_all() == messages
    last = messages[-1]
    place = {"topic": POSTS, "partition": last["partition"], "offset": last["offset"]}
    assert world.done("GET", "fetch", place) == [last]
    assert world.done("POST", "fetch", {"topicPartitionOffsets": [place]}) == [last]


def test_one_fetch_reads_several_topics(world: EventsWorld) -> None:
    world.write([1, 2, 3])
    world.write([4, 5], table="users")
    places = [{"topic": USERS, "partition": p, "offset": 0} for p in range(8)]
    own = {"topic": POSTS, "partition": 0, "offset": 0}
    body = {**own, "topicPartitionOffsets": places, "timeout": 0}
    found = {(m["topic"], m["offset"]) for m in world.done("POST", "fetch", body)}
    of_posts = {(m["topic"], m["offset"]) for m in world.fetch_all() if m["partition"] == 0}
    assert found == of_posts | {(USERS, m["offset"]) for m in world.fetch_all(USERS)}


def test_a_fetch_waits_for_what_is_written_and_no_longer_than_it_says(world: EventsWorld) -> None:
    world.write([1])
    (message,) = world.fetch_all()
    place = {**message, "offset": message["offset"] + 1}
    began = time.monotonic()
    assert world.done("POST", "fetch", {**place, "timeout": 200}) == []
    assert 0.15 < time.monotonic() - began < 5
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(world.done, "POST", "fetch", {**place, "timeout": 20_000})
        world.write([1], action="update")
        assert ids(waiting.result(15)) == [1]


def test_a_group_gets_each_message_once(world: EventsWorld) -> None:
    world.write(range(1, 31))
    assert sorted(ids(world.consume())) == list(range(1, 31))
    assert world.consume() == []
    world.write([31])
    assert ids(world.consume()) == [31]
    assert sorted(ids(world.consume(group="other"))) == list(range(1, 32))


def test_a_group_begins_with_the_latest_unless_it_says_otherwise(world: EventsWorld) -> None:
    world.write([1])
    assert world.done("GET", f"consume/late/one/{POSTS}?timeout=0") == []
    world.write([2])
    assert ids(world.done("POST", "consume/late/one", {"topic": POSTS})) == [2]


def test_a_consume_waits_for_what_is_written(world: EventsWorld) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(world.consume, timeout=20_000)
        world.write([7])
        assert ids(waiting.result(15)) == [7]


def test_topics_are_given_in_the_path_or_in_the_body(world: EventsWorld) -> None:
    world.write([1])
    world.write([2], table="users")
    headers = {"kafka_auto_offset_reset": "earliest"}
    both = {"topics": [POSTS, USERS], "timeout": 0}
    assert sorted(ids(world.done("POST", "consume/a/one", both, **headers))) == [1, 2]
    assert ids(world.done("GET", "consume/b/one", {"topic": POSTS}, **headers)) == [1]
    answer = world.call("POST", "consume/c/one", {})
    assert (answer.status, answer.json["status"]) == (400, 400)


def test_names_with_a_slash_are_those_that_were_sent(world: EventsWorld) -> None:
    world.write([1, 2])
    assert sorted(ids(world.consume("a%2Fb", group="eu-1%2fsearch"))) == [1, 2]
    [group] = world.done("GET", "consumers")
    assert (group["name"], group["instances"][0]["name"]) == ("eu-1/search", "a/b")
    world.done("POST", "commit/eu-1%2Fsearch/a%2Fb")
    committed = world.done("POST", "committed/eu-1%2Fsearch/a%2Fb", {"topic": POSTS})
    assert committed[0]["offset"] >= 0
    # What looks like one, sent as it is, is none.
    assert world.consume("c", group="eu-1%252Fsearch") == world.consume("d", group="100%25")
    world.done("POST", "delete-consumer/eu-1%2Fsearch/a%2Fb")


def test_commits_are_by_offset_or_of_what_was_last_consumed(world: EventsWorld) -> None:
    world.write(range(1, 11))
    manual = {"kafka_enable_auto_commit": "false"}
    messages = world.consume(headers=manual)
    first = messages[0]
    place = {"topic": POSTS, "partition": first["partition"]}
    assert world.done("POST", "committed/g/one", place) == [{**place, "offset": -1}]
    done = {"result": "Success", "status": 200}
    assert world.done("POST", "commit/g/one", {**place, "offset": first["offset"] + 1}) == done
    assert world.done("GET", "committed/g/one", [place]) == [
        {**place, "offset": first["offset"] + 1}
    ]
    assert world.done("GET", "commit/g/one") == done
    committed = world.done(
        "POST", "committed/g/one", [{"topic": POSTS, "partition": p} for p in range(8)]
    )
    for message in messages:
        assert committed[message["partition"]]["offset"] > message["offset"]
    assert world.done("POST", "delete-consumer/g/one") == done
    assert world.consume("two", headers=manual) == []


def test_an_offset_beyond_the_end_is_as_none(world: EventsWorld) -> None:
    world.write([1])
    manual = {"kafka_enable_auto_commit": "false"}
    (message,) = world.consume(headers=manual)
    place = {"topic": POSTS, "partition": message["partition"], "offset": 1_000_000}
    world.done("POST", "commit/g/one", place)
    world.done("POST", "delete-consumer/g/one")
    assert ids(world.consume("two", headers=manual)) == [1]


def test_an_empty_array_commits_nothing(world: EventsWorld) -> None:
    world.write([1])
    manual = {"kafka_enable_auto_commit": "false"}
    assert len(world.consume(headers=manual)) == 1
    world.done("POST", "commit/g/one", [])
    world.done("POST", "delete-consumer/g/one")
    assert ids(world.consume("two", headers=manual)) == [1]


def test_who_goes_on_with_other_topics_has_committed_what_it_leaves(world: EventsWorld) -> None:
    world.write([1])
    world.write([2], table="users")
    assert ids(world.consume()) == [1]
    assert ids(world.consume(topic=USERS)) == [2]
    assert world.consume() == []


def test_a_topic_that_there_is_not_leaves_no_group_behind(world: EventsWorld) -> None:
    assert world.call("GET", "consume/g/one/nothing").status == 404
    assert world.done("GET", "consumers") == []


def test_what_is_not_committed_comes_again_to_the_next_instance(world: EventsWorld) -> None:
    world.write([1, 2, 3])
    manual = {"kafka_enable_auto_commit": "false"}
    messages = world.consume(headers=manual)
    world.done("DELETE", "delete-consumer/g/one")
    again = world.consume("two", headers=manual)
    assert sorted(ids(again)) == sorted(ids(messages)) == [1, 2, 3]


def test_with_auto_commit_what_was_consumed_is_committed_by_the_next_consume(
    world: EventsWorld,
) -> None:
    world.write([1])
    often = {"kafka_auto_commit_interval": "0"}
    (message,) = world.consume(headers=often)
    place = {"topic": POSTS, "partition": message["partition"]}
    assert world.done("POST", "committed/g/one", place)[0]["offset"] <= message["offset"]
    assert world.consume(headers=often) == []
    assert world.done("POST", "committed/g/one", place)[0]["offset"] > message["offset"]


def test_offsets_are_found_by_time(world: EventsWorld) -> None:
    world.write([1], second=1)
    world.write([1], second=2, action="update")
    first, second = (m for m in world.fetch_all())
    place = {"topic": POSTS, "partition": first["partition"]}

    def offset(at: object) -> int:
        (found,) = world.done("POST", f"offsets/{at}", [place])
        assert found.keys() == {"topic", "partition", "offset"}
        return int(found["offset"])

    assert offset("earliest") <= first["offset"]
    assert offset("latest") > second["offset"]
    assert offset(first["timestamp"]) == first["offset"]
    assert offset(first["timestamp"] + 1) == second["offset"]
    assert offset(second["timestamp"] + 1) == offset("latest")
    assert world.call("GET", "offsets/yesterday", place).status == 400


def test_partitions_are_shared_and_each_is_with_one(world: EventsWorld) -> None:
    world.consume("one")
    world.consume("two")
    # What the second is to have the first lets go of when it asks for more.
    world.consume("one")
    (group,) = world.done("GET", "consumers")
    assert group["name"] == "g"
    shares = {one["name"]: one["topics"] for one in group["instances"]}
    partitions = [topic["partitions"] for topics in shares.values() for topic in topics]
    assert [len(some) for some in partitions] == [4, 4]
    assert sorted(p for some in partitions for p in some) == list(range(8))
    world.write(range(1, 41))
    found = [ids(world.consume(name)) for name in ("one", "two")]
    assert all(found)
    assert sorted(found[0] + found[1]) == list(range(1, 41))


def test_instances_beyond_the_partitions_get_nothing(world: EventsWorld) -> None:
    names = [f"i{number}" for number in range(10)]
    for _ in range(2):
        for name in names:
            world.consume(name)
    world.write(range(1, 100))
    found = [ids(world.consume(name)) for name in names]
    assert sum(bool(some) for some in found) == 8
    assert sorted(n for some in found for n in some) == list(range(1, 100))


def test_when_an_instance_is_silent_exactly_its_partitions_move(world: EventsWorld) -> None:
    manual = {"kafka_enable_auto_commit": "false"}
    short = {"kafka_session_timeout_ms": "1000", **manual}
    for name in ("one", "two", "three", "one", "two"):
        world.consume(name, headers=short if name == "one" else manual)
    before = _shares(world)
    world.write(range(1, 41))
    silent = ids(world.consume("one", headers=short))
    assert silent
    found: list[int] = []
    deadline = time.monotonic() + 10
    while len(set(found)) < 40 and time.monotonic() < deadline:
        for name in ("two", "three"):
            found += ids(world.consume(name, timeout=300, headers=manual))
    assert sorted(found) == list(range(1, 41))
    after = _shares(world)
    assert "one" not in after
    for name in ("two", "three"):
        assert before[name] <= after[name]


def test_an_instance_that_was_thrown_out_cannot_commit(world: EventsWorld) -> None:
    world.write([1])
    manual = {"kafka_enable_auto_commit": "false"}
    (message,) = world.consume(headers={"kafka_session_timeout_ms": "1000", **manual})
    offset = {"topic": POSTS, "partition": message["partition"], "offset": 1_000_000}
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(world.consume, "two", timeout=20_000, headers=manual)
        assert ids(waiting.result(15)) == [1]
    refused = world.call("POST", "commit/g/one", offset)
    assert refused.status == 404
    # Back again, it has what it had only once the other lets go of it.
    world.consume(headers=manual)
    assert world.call("POST", "commit/g/one", offset).status == 409
    world.done("POST", "commit/g/two", {**offset, "offset": message["offset"] + 1})


def test_of_two_that_consume_by_one_name_the_earlier_is_told(world: EventsWorld) -> None:
    with ThreadPoolExecutor(2) as threads:
        path = f"consume/g/one/{POSTS}?timeout=20000"
        first = threads.submit(world.call, "GET", path)
        world.until_consuming()
        second = threads.submit(world.call, "GET", path)
        refused = first.result(15)
        assert refused.status == 409
        assert "its own name" in refused.json["error"]
        world.write([1])
        assert ids(second.result(15).json) == [1]


def test_a_user_who_is_removed_is_refused_amid_consuming(world: EventsWorld) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(world.call, "GET", f"consume/g/one/{POSTS}?timeout=60000")
        world.until_consuming()
        began = time.monotonic()
        world.execute("DELETE FROM triggerkit.event_users")
        assert waiting.result(15).status == 401
        assert time.monotonic() - began < 8
    assert world.call("GET", "topics").status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("nobody"),
        basic(password="wrong"),
        {"authorization": "Basic !"},
        {"authorization": "Bearer x"},
    ],
)
def test_who_is_no_user_is_refused(world: EventsWorld, headers: dict[str, str]) -> None:
    for path in ("topics", "consumers", "fetch", "consume/g/one", "commit/g/one", "produce"):
        answer = world.site.request("GET", f"/kafka/{path}", None, headers)
        assert answer.json["status"] == answer.status
        assert answer.status in (401, 429)
        if answer.status == 401:
            assert answer.json == {"error": "Unauthorized", "status": 401}
            assert answer.headers["www-authenticate"].startswith("Basic")


def test_wrong_passwords_are_held_off_and_the_right_one_that_is_known_goes_on(
    world: EventsWorld,
) -> None:
    world.done("GET", "topics")
    wrong = basic(password="wrong")
    statuses = [world.site.request("GET", "/kafka/topics", None, wrong).status for _ in range(7)]
    assert statuses == [401] * 5 + [429] * 2
    world.done("GET", "topics")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "fetch", b"{", 400),
        ("POST", "fetch", b"[" * 100_000, 400),
        ("POST", "fetch", {}, 400),
        ("POST", "fetch", {"topic": "nothing"}, 404),
        ("POST", "fetch", {"topic": POSTS, "partition": 8}, 404),
        ("POST", "fetch", {"topic": POSTS, "partition": -1}, 400),
        ("POST", "fetch", {"topic": POSTS, "offset": 1_000_000}, 400),
        ("POST", "fetch", {"topic": POSTS, "offset": 2**63}, 400),
        ("POST", "fetch", {"topic": POSTS, "timeout": 300_001}, 400),
        ("POST", "fetch", {"topic": "t" * 250}, 400),
        ("POST", "fetch", b" " * 300_000, 413),
        ("POST", "fetch", {"topicPartitionOffsets": [{"topic": POSTS}] * 2}, 400),
        ("GET", f"consume/{'g' * 300}/one/{POSTS}", None, 400),
        ("GET", f"consume/g/{'i' * 300}/{POSTS}", None, 400),
        ("GET", f"consume/g%00/one/{POSTS}", None, 400),
        ("GET", "consume/g/one/nothing", None, 404),
        ("GET", f"consume/g/one/{POSTS}?timeout=soon", None, 400),
        ("POST", "consume/g/one", {"topics": [POSTS] * 101}, 400),
        ("POST", "commit/g/nobody", None, 404),
        ("POST", "commit/g/one", {"topic": POSTS, "partition": 0}, 400),
        ("POST", "commit/g/one", {"topic": "nothing", "partition": 0, "offset": 1}, 404),
        ("POST", "committed/g/one", {"partition": 0}, 400),
        ("POST", "delete-consumer/g/nobody", None, 404),
        ("POST", "produce", {"topic": POSTS, "value": "x"}, 405),
        ("GET", f"produce/{POSTS}/x", None, 405),
        ("PUT", "fetch", None, 405),
        ("GET", "delete-consumer/g/one", None, 405),
    ],
)
def test_what_cannot_be_is_told_in_words(
    world: EventsWorld, method: str, path: str, body: object, status: int
) -> None:
    answer = world.call(method, path, body)
    assert answer.status == status, answer
    assert answer.json.keys() == {"error", "status"}
    assert answer.json["status"] == status
    assert len(answer.json["error"]) > 10


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("kafka_enable_auto_commit", "perhaps"),
        ("kafka_auto_commit_interval", "-1"),
        ("kafka_auto_offset_reset", "first"),
        ("kafka_session_timeout_ms", "10"),
    ],
)
def test_a_header_that_makes_no_sense_is_named(world: EventsWorld, header: str, value: str) -> None:
    answer = world.call("GET", f"consume/g/one/{POSTS}", None, **{header: value})
    assert answer.status == 400
    assert header.replace("_", "-") in answer.json["error"].lower()


def test_with_none_to_begin_at_an_instance_is_told(world: EventsWorld) -> None:
    path = f"consume/g/one/{POSTS}?timeout=0"
    answer = world.call("GET", path, None, kafka_auto_offset_reset="none")
    assert answer.status == 400
    assert "Kafka-Auto-Offset-Reset" in answer.json["error"]
    assert world.done("GET", "consumers") in ([], [{"name": "g", "instances": []}])


def _shares(world: EventsWorld) -> dict[str, set[int]]:
    (group,) = world.done("GET", "consumers")
    return {
        one["name"]: {p for topic in one["topics"] for p in topic["partitions"]}
        for one in group["instances"]
    }
