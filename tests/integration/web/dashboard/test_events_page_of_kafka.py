"""The pages of events where Kafka is set: its offsets, and how far behind the groups are there."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.conformance.events.world import POSTS, USERS, EventsWorld, make_topics, prepare
from tests.integration.run_state import RunState
from tests.integration.serving import Site
from tests.integration.web.dashboard.visitor import Visitor, dashboard
from tests.kafka import KafkaServer
from triggerkit.settings import Settings

GROUP = "/events/groups/search"


@pytest.fixture
def visitor(state: RunState, kafka_server: KafkaServer) -> Iterator[Visitor]:
    """Somebody who logged in where Kafka is set."""
    with dashboard(state.settings, (), **kafka_server.settings()) as visitor:
        yield visitor.log_in()


@pytest.fixture
def world(state: RunState, visitor: Visitor, kafka_server: KafkaServer) -> EventsWorld:
    """Topics of two tables in Kafka, behind the visitor's own server."""
    prepare(state.settings)
    make_topics(kafka_server, POSTS, USERS)
    settings = Settings.parse({**state.settings.environment(), **kafka_server.settings()})
    return EventsWorld(settings, Site(visitor.port))


def test_offsets_and_groups_are_those_of_kafka(world: EventsWorld, visitor: Visitor) -> None:
    world.write(range(1, 31))
    ends = [one["offset"] for one in world.done("POST", "offsets/latest")]
    page = visitor.get("/events").text
    assert f"{POSTS} public.posts 8 0 {max(ends) - 1} 30" in page
    assert f"{USERS} public.users 8 none none 0" in page
    assert "offsets and groups are of Kafka's topics" in page
    assert len(world.consume("one", group="search")) == 30
    assert f"search {POSTS} 1 30" in visitor.get("/events").text
    world.done("POST", "commit/search/one")
    world.write(range(31, 36))
    assert f"search {POSTS} 1 5" in visitor.get("/events").text
    assert re.search(r"5 events behind", visitor.get(GROUP).text)
    seen = visitor.get(GROUP)
    source = re.search(r'name="source" value="([^"]+)"', seen.html)
    assert source is not None
    form = {"csrf": seen.csrf, "group": "search", "source": source[1], "instance": "one"}
    assert visitor.submit("/events/instances/remove", form).status == 303
    assert world.done("GET", "consumers") == [{"name": "search", "instances": []}]


def test_the_page_is_there_while_kafka_is_away(
    world: EventsWorld, visitor: Visitor, kafka_server: KafkaServer
) -> None:
    world.write([1])
    world.consume("one", group="search")
    with kafka_server.away(force=True):
        began = time.monotonic()
        page = visitor.get("/events").text
        assert time.monotonic() - began < 8
        assert "The events cannot be read: Kafka:" in page
        assert "search" in page
        assert "is not known: Kafka:" in visitor.get(GROUP).text
