"""Groups have a limit: those that nobody uses make room, and nobody else is forgotten."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.conformance.events.world import POSTS, EventsWorld, events_over_the_log
from triggerkit.events.groups.store import MOST_GROUPS
from triggerkit.settings import Settings


@pytest.fixture
def world(settings: Settings) -> Iterator[EventsWorld]:
    """Events, and as many groups as there may be: the last one was not used for the longest."""
    with events_over_the_log(settings) as world:
        world.write([1])
        with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO triggerkit.event_groups (name, used_at) "
                "SELECT 'g' || n, now() - n * interval '1 second' FROM generate_series(1, %s) n",
                [MOST_GROUPS],
            )
        yield world


def names(world: EventsWorld) -> set[str]:
    return {group["name"] for group in world.done("GET", "consumers")}


def test_a_group_above_the_limit_is_refused_in_words_and_those_there_are_go_on(
    world: EventsWorld,
) -> None:
    refused = world.call("GET", f"consume/more/one/{POSTS}?timeout=0")
    assert refused.status == 409
    assert f"there are {MOST_GROUPS} groups already" in refused.json["error"]
    assert len(world.consume(group="g7")) == 1
    assert len(names(world)) == MOST_GROUPS


def test_a_group_that_was_not_used_for_a_week_makes_room(world: EventsWorld) -> None:
    world.execute(
        "UPDATE triggerkit.event_groups SET used_at = used_at - interval '7 days' "
        "WHERE name IN ('g7', 'g8', 'g9')"
    )
    world.consume(group="g9")
    assert len(world.consume(group="more")) == 1
    left = names(world)
    assert "g8" not in left
    assert {"g7", "g9", "more"} < left
    assert len(left) == MOST_GROUPS


def test_a_group_counts_as_used_as_long_as_its_instances_were_there(world: EventsWorld) -> None:
    world.execute("UPDATE triggerkit.event_groups SET used_at = now() - interval '8 days'")
    world.consume(group="g1")
    world.done("POST", "delete-consumer/g1/one")
    world.execute(
        "UPDATE triggerkit.event_groups SET used_at = now() WHERE name <> 'g1' AND id > 3"
    )
    world.consume(group="a")
    world.consume(group="b")
    left = names(world)
    assert "g1" in left
    assert {"g2", "g3"} & left == set()
    assert world.call("GET", f"consume/c/one/{POSTS}?timeout=0").status == 409
