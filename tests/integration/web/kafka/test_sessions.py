"""Sessions, users and topics that are others by now, over the log and over a real Kafka."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.events.world import (
    POSTS,
    USERS,
    EventsWorld,
    drop_topics,
    events_world,
    ids,
    make_topics,
)
from tests.kafka import KafkaServer
from triggerkit.events.topics import Topic, store_topics
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.web.kafka import waiting as waiting_module
from triggerkit.web.kafka.waiting import Wait

MANUAL = {"kafka_enable_auto_commit": "false"}


@pytest.fixture(params=["log", "kafka"])
def world(settings: Settings, request: pytest.FixtureRequest) -> Iterator[EventsWorld]:
    """Events, and the API over them."""
    with events_world(request.param, settings, request) as world:
        yield world


def test_the_session_of_the_first_request_is_kept_while_a_later_one_waits_without_saying_it(
    world: EventsWorld,
) -> None:
    world.consume(headers={"kafka_session_timeout_ms": "1000"})
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(world.call, "GET", f"consume/g/one/{POSTS}?timeout=6000")
        while not waiting.done():
            # Whoever comes sees who is silent.
            world.consume("two", timeout=100)
        assert waiting.result().status == 200


def test_an_explicit_commit_holds_also_where_the_instance_commits_by_itself(
    world: EventsWorld,
) -> None:
    world.write(range(1, 11))
    short = {"kafka_session_timeout_ms": "1000"}
    assert len(world.consume(headers=short)) == 10
    world.done("POST", "commit/g/one")
    committed = world.done("POST", "committed/g/one", {"topic": POSTS, "partition": 0})
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(world.consume, "two", timeout=4000, headers=MANUAL)
        assert waiting.result(15) == []
    assert world.done("POST", "committed/g/two", {"topic": POSTS, "partition": 0}) == committed


def test_a_user_who_was_removed_a_moment_ago_gets_nothing_of_what_comes(
    world: EventsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_wait, seen, news = threading.Event(), set[int](), Wait.news

    async def noted(wait: Wait) -> None:
        seen.add(id(wait))
        if len(seen) == 2:
            both_wait.set()
        await news(wait)

    monkeypatch.setattr(Wait, "news", noted)
    with ThreadPoolExecutor(2) as threads:
        consuming = threads.submit(world.call, "GET", f"consume/g/one/{POSTS}?timeout=60000")
        places = [{"topic": POSTS, "partition": number} for number in range(8)]
        body = {"topicPartitionOffsets": places, "timeout": 60_000}
        fetching = threads.submit(world.call, "POST", "fetch", body)
        assert both_wait.wait(10)
        # Both have just looked whether there is such a user.
        world.execute("DELETE FROM triggerkit.event_users")
        world.write(range(1, 11))
        assert consuming.result(15).status == fetching.result(15).status == 401


def test_no_more_requests_wait_than_may_also_when_all_come_at_once(
    world: EventsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_module, "MAX_WAITING", 3)
    body = {"topic": POSTS, "timeout": 3000}
    world.done("GET", "topics")
    with ThreadPoolExecutor(12) as threads:
        asked = [threads.submit(world.call, "POST", "fetch", body) for _ in range(12)]
        statuses = [one.result(30).status for one in asked]
    assert statuses.count(200) == 3
    assert statuses.count(503) == 9


@pytest.mark.parametrize("reset", ["earliest", "latest"])
def test_a_group_that_was_away_when_a_topic_was_made_anew_gets_all_of_it(
    settings: Settings, kafka_server: KafkaServer, request: pytest.FixtureRequest, reset: str
) -> None:
    with events_world("kafka", settings, request) as world:
        world.write(range(1, 11))
        assert len(world.consume()) == 10
        world.done("POST", "commit/g/one")
        world.done("POST", "delete-consumer/g/one")
        drop_topics(kafka_server, POSTS)
        make_topics(kafka_server, POSTS)
        # More than the earlier one had, in each partition.
        world.write(range(101, 201))
        found: list[int] = []
        for _ in range(5):
            found += ids(world.consume("two", headers={"kafka_auto_offset_reset": reset}))
        assert set(found) == set(range(101, 201))


def test_a_topic_that_is_another_table_s_by_now_is_read_from_its_first_event(
    settings: Settings, request: pytest.FixtureRequest
) -> None:
    with events_world("log", settings, request) as world:
        world.write(range(1, 6), table="users")
        assert world.fetch_all() == []
        assert world.consume() == []
        asyncio.run(_give_name(settings, POSTS, "users"))
        assert sorted(ids(world.fetch_all())) == [1, 2, 3, 4, 5]
        assert sorted(ids(world.consume())) == [1, 2, 3, 4, 5]


async def _give_name(settings: Settings, name: str, table: str) -> None:
    async with await connect(settings.state_dsn, "test") as state:
        other = Topic(USERS, "d", "public", table, database_id=1)
        await store_topics(state, [Topic(name, "d", "public", table, database_id=1)], [other])
