"""Processes and connections that are lost while events are consumed: nothing else is."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conformance.events.world import (
    POSTS,
    USERS,
    EventsWorld,
    events_over,
    events_over_the_log,
    events_world,
    ids,
    make_topics,
    prepare,
)
from tests.integration.serve_process import serve_process
from triggerkit.settings import Settings

OFTEN = {"kafka_auto_commit_interval": "0"}


@pytest.fixture(params=["log", "kafka"])
def prepared(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Settings of events over the log, or over Kafka."""
    prepare(settings)
    if request.param == "log":
        return settings
    server = request.getfixturevalue("kafka_server")
    make_topics(server, POSTS, USERS)
    return Settings.parse({**settings.environment(), **server.settings()})


@pytest.fixture(params=["log", "kafka"])
def world(settings: Settings, request: pytest.FixtureRequest) -> Iterator[EventsWorld]:
    """Events, and the API over them."""
    with events_world(request.param, settings, request) as world:
        yield world


def test_what_a_killed_serve_answered_last_comes_again_from_another(
    prepared: Settings, tmp_path: Path
) -> None:
    with serve_process(prepared, tmp_path) as (site, pid):
        world = EventsWorld(prepared, site)
        world.write(range(1, 21))
        first = world.consume(headers=OFTEN)
        assert len(first) == 20
        world.write(range(21, 31))
        # Of these nobody knows whether they arrived.
        second = world.consume(headers=OFTEN)
        os.kill(pid, signal.SIGKILL)
    with serve_process(prepared, tmp_path) as (site, _):
        world = EventsWorld(prepared, site, world.written)
        assert world.consume(headers=OFTEN) == second
        world.write([31])
        assert ids(world.consume(headers=OFTEN)) == [31]


def test_serve_is_killed_again_and_again_and_each_message_comes(
    prepared: Settings, tmp_path: Path
) -> None:
    seen: list[int] = []
    is_done = threading.Event()
    written = 0

    def consume(world: EventsWorld) -> None:
        while not is_done.is_set():
            try:
                seen.extend(ids(world.consume(timeout=5000, headers=OFTEN)))
            except (OSError, HTTPException, AssertionError):
                return

    for _ in range(4):
        with serve_process(prepared, tmp_path) as (site, pid), ThreadPoolExecutor(1) as threads:
            world = EventsWorld(prepared, site, written)
            consuming = threads.submit(consume, world)
            for _ in range(20):
                world.write([world.written + 1, world.written + 2])
            written = world.written
            os.kill(pid, signal.SIGKILL)
            consuming.result(30)
    with serve_process(prepared, tmp_path) as (site, _):
        world = EventsWorld(prepared, site, written)
        while found := ids(world.consume(timeout=500, headers=OFTEN)):
            seen += found
    assert set(seen) == set(range(1, written + 1))
    # At most the answers under way at each kill came twice.
    assert len(seen) < 2 * written


def test_several_serves_share_a_group(world: EventsWorld) -> None:
    with events_over(world.settings) as other:
        world.consume("one")
        other.consume("two")
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(other.consume, "two", timeout=20_000)
            # The second lets the first have its own only once it is handed over.
            world.consume("one")
            world.write(range(1, 41))
            found = ids(waiting.result(15))
        assert found
        assert sorted(found + ids(world.consume("one")) + ids(other.consume("two"))) == list(
            range(1, 41)
        )


def test_an_instance_goes_on_at_another_serve_without_repeating(world: EventsWorld) -> None:
    with events_over(world.settings) as other:
        world.write(range(1, 11))
        assert len(world.consume(headers=OFTEN)) == 10
        assert other.consume(headers=OFTEN) == []
        world.write([11])
        assert ids(other.consume(headers=OFTEN)) == [11]
        assert world.consume(headers=OFTEN) == []


def test_lost_connections_are_told_and_made_again(settings: Settings) -> None:
    with events_over_the_log(settings) as world:
        world.write([1])
        messages = world.consume()
        with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE 'triggerkit %'"
            )
        path = f"consume/g/one/{POSTS}?timeout=0"
        answers = [world.call("GET", path) for _ in range(3)]
        assert answers[-1].status == 200
        for answer in answers:
            assert answer.status in (200, 503)
            assert answer.status == 200 or answer.headers["retry-after"] == "1"
        # Whether the last answer arrived is not known to who comes after.
        repeated = [
            message for answer in answers if answer.status == 200 for message in answer.json
        ]
        assert repeated in ([], messages)


def test_a_fetch_before_what_the_log_keeps_is_told_the_earliest(settings: Settings) -> None:
    with events_over_the_log(settings) as world:
        world.write(range(1, 41))
        world.consume(headers={"kafka_enable_auto_commit": "false"})
        world.execute("UPDATE triggerkit.databases SET retained_from = 31")
        world.execute("DELETE FROM triggerkit.events WHERE position < 31")
        place = {"topic": POSTS, "partition": 0, "offset": 30}
        answer = world.call("POST", "fetch", place)
        assert answer.status == 400
        assert "out of range: the earliest is 31, the latest 41" in answer.json["error"]
        assert world.done("POST", "fetch", {**place, "offset": 31, "timeout": 0}) is not None
        (earliest,) = world.done("POST", "offsets/earliest", {"topic": POSTS})
        assert earliest["offset"] == 31
        world.done("POST", "delete-consumer/g/one")
        assert _sorted(world.consume("two")) == list(range(31, 41))
        late = {"kafka_auto_offset_reset": "none"}
        path = f"consume/other/one/{POSTS}?timeout=0"
        assert world.call("GET", path, None, **late).status == 400


def _sorted(messages: list[dict[str, Any]]) -> list[int]:
    return sorted(ids(messages))
