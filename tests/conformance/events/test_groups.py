"""Consumer groups of the events, stated once for whatever holds the events."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from tests.conformance.events.world import (
    POSTS,
    USERS,
    EventsWorld,
    ids,
)


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
