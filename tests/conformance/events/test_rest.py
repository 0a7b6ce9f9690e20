"""The events REST API, stated once for whatever holds the events."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from tests.conformance.events.world import (
    POSTS,
    USERS,
    EventsWorld,
    basic,
    ids,
)


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
