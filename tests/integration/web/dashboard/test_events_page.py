"""The pages of events: topics, what comes on them, groups, users, and the way into Kafka."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.conformance.events.world import PASSWORD, POSTS, USER, EventsWorld, basic, prepare
from tests.integration.run_state import RunState
from tests.integration.serving import Site
from tests.integration.web.dashboard.test_live import listening, told
from tests.integration.web.dashboard.test_pages import HOSTILE
from tests.integration.web.dashboard.test_roles import READ_KEY
from tests.integration.web.dashboard.visitor import Visitor, dashboard
from triggerkit.events.survey import COUNTED_POSITIONS, MOST_BEHIND

GROUP = "/events/groups/search"

#: What a group and an instance can be called at worst: a part of a path, printable.
HOSTILE_NAME = HOSTILE.partition("\x1b")[0].replace("/", "")


@pytest.fixture
def world(state: RunState, visitor: Visitor) -> EventsWorld:
    """Topics of two tables, behind the visitor's own server."""
    prepare(state.settings)
    return EventsWorld(state.settings, Site(visitor.port))


@contextmanager
def reading(state: RunState, hides: str = "false") -> Iterator[Visitor]:
    """Somebody who came in by the read key."""
    given = {"TRIGGERKIT_READ_KEY": READ_KEY, "TRIGGERKIT_HIDE_VALUES": hides}
    with dashboard(state.settings, (), **given) as reader:
        assert reader.submit("/login", {"key": READ_KEY}).status == 303
        yield reader


def users(state: RunState) -> list[str]:
    return state.rows("SELECT name FROM triggerkit.event_users ORDER BY name")


def test_without_topics_the_page_says_how_to_declare_them(visitor: Visitor) -> None:
    page = visitor.get("/events")
    assert 'tables = ["public.posts"]' in page.text
    assert "triggerkit apply" in page.text
    assert "Nobody has consumed by group yet" in page.text
    assert "/dashboard/events" in visitor.get("/runs").links


def test_topics_are_shown_with_their_offsets_and_their_newest_event(
    world: EventsWorld, visitor: Visitor
) -> None:
    before = visitor.get("/events").text
    assert f"{POSTS} public.posts 8 none none 0 none of late" in before
    world.write([1, 2, 3])
    world.write([7], "users")
    page = visitor.get("/events")
    # Commits of these tests are of October, and were captured just now.
    assert re.search(rf"{POSTS} public.posts 8 1 4 3 \S+ d ago , at 3 ", page.text), page.text
    assert re.search(r"triggerkit.d.users public.users 8 1 4 1 \S+ d ago , at 4 ", page.text)
    assert f"/dashboard/events/topics/{POSTS}" in page.links


def test_a_topic_shows_its_newest_events_and_those_that_fit(
    world: EventsWorld, visitor: Visitor
) -> None:
    world.write([1, 2])
    world.write([2], action="update")
    world.write([2], action="delete")
    world.write([9], "users")
    page = visitor.get(f"/events/topics/{POSTS}").text
    assert page.index("deleted 2") < page.index("updated 2") < page.index("inserted 2")
    assert 'was {"title":"before"}, is {"id":2,"title":"post 2"}' in page
    assert "post 9" not in page
    updated = visitor.get(f"/events/topics/{POSTS}?filter=action:updated+key:2").text
    assert "updated 2" in updated
    assert "inserted 2" not in updated
    assert "No event fits." in visitor.get(f"/events/topics/{POSTS}?key=77").text
    assert "there is no moved" in visitor.get(f"/events/topics/{POSTS}?action=moved", 422).text
    assert "no such topic" in visitor.get("/events/topics/triggerkit.d.nothing", 404).text


def test_a_topic_is_paged_back_to_its_first_event_also_where_others_were_written_since(
    world: EventsWorld, visitor: Visitor
) -> None:
    world.write(range(60))
    world.execute(
        "UPDATE triggerkit.databases SET next_position = next_position + 100000"
    )  # as if another table had been written to
    page, seen = f"/events/topics/{POSTS}", ""
    for _ in range(9):
        found = visitor.get(page)
        seen += found.text
        following = [link for link in found.links if "cursor=" in link]
        if not following:
            break
        page = following[0].removeprefix("/dashboard")
    assert all(f" inserted {row} " in seen for row in range(60))
    assert COUNTED_POSITIONS < 100000


def test_an_open_topic_is_told_of_a_new_event(world: EventsWorld, visitor: Visitor) -> None:
    world.write([1])
    with listening(visitor) as stream:
        world.write([2])
        assert told(stream) == "changed"
    assert "inserted 2" in visitor.get(f"/events/topics/{POSTS}").text


def test_a_group_is_shown_with_its_instances_partitions_and_how_far_behind_it_is(
    world: EventsWorld, visitor: Visitor, state: RunState
) -> None:
    world.write(range(20))
    assert len(world.consume("one", group="search")) == 20
    assert f"search {POSTS} 1 20" in visitor.get("/events").text
    world.done("POST", "commit/search/one")
    world.write(range(20, 25))
    world.write(range(100), "users")
    listed = visitor.get("/events")
    assert f"search {POSTS} 1 5" in listed.text
    assert f"/dashboard{GROUP}" in listed.links
    page = visitor.get(GROUP).text
    assert f"one {POSTS} by itself" in page
    assert re.search(rf"{POSTS} 7 one 2\d \d", page), page
    world.consume("two", group="search")
    seen = visitor.get(GROUP)
    form = {"csrf": seen.csrf, "group": "search", "instance": "one"}
    assert visitor.follow(visitor.submit("/events/instances/remove", form)).status == 200
    left = visitor.get(GROUP).text
    assert f"one {POSTS} by itself" not in left
    assert f"{POSTS} 7 two 2" in left
    assert state.rows("SELECT detail FROM triggerkit.audit WHERE subject = 'search'") == [
        {"instance": "one"}
    ]
    assert visitor.submit("/events/instances/remove", form).status == 404
    world.execute("UPDATE triggerkit.event_instances SET seen_at = now() - interval '1 hour'")
    assert "None consumes now." in visitor.get(GROUP).text


def test_what_is_behind_is_counted_up_to_a_limit(world: EventsWorld, visitor: Visitor) -> None:
    world.write([0])
    world.consume("one", group="search")
    world.write([1] * (MOST_BEHIND + 5))
    assert f"{MOST_BEHIND:,}+" in visitor.get(GROUP).text


def test_a_user_is_added_with_a_password_that_is_shown_once_and_is_removed(
    world: EventsWorld, visitor: Visitor, state: RunState
) -> None:
    csrf = visitor.get("/events").csrf
    made = visitor.submit("/events/users/add", {"csrf": csrf, "name": "search"})
    password = re.search(r"<pre[^>]*>([^<]+)</pre>", made.html)
    assert (made.status, made.headers["cache-control"]) == (200, "no-store")
    assert password is not None
    assert "data-live" not in made.html
    given = basic("search", password[1])
    assert world.site.request("GET", "/kafka/topics", None, given).status == 200
    page = visitor.get("/events")
    assert "search" in page.text
    assert password[1] not in page.html
    taken = visitor.submit("/events/users/add", {"csrf": csrf, "name": "search"})
    assert (taken.status, "there is a user search already" in taken.text) == (409, True)
    wrong = visitor.submit("/events/users/add", {"csrf": csrf, "name": HOSTILE})
    assert (wrong.status, "a user's name has" in wrong.text) == (422, True)
    assert users(state) == [USER, "search"]
    removed = visitor.submit("/events/users/remove", {"csrf": csrf, "name": "search"})
    assert removed.status == 303
    assert users(state) == [USER]
    assert visitor.submit("/events/users/remove", {"csrf": csrf, "name": "x"}).status == 404
    actions = state.rows("SELECT action FROM triggerkit.audit WHERE actor = 'dashboard'")
    assert actions[-2:] == ["add user of events", "remove user of events"]


def test_without_its_token_and_by_the_read_key_nothing_is_changed(
    world: EventsWorld, visitor: Visitor, state: RunState
) -> None:
    world.write([1])
    world.consume("one", group="search")
    attempts = {
        "/events/users/add": {"name": "other"},
        "/events/users/remove": {"name": USER},
        "/events/instances/remove": {"group": "search", "instance": "one"},
    }
    with reading(state) as reader:
        csrf = reader.get("/events").csrf
        assert "/events/users" not in reader.get("/events").html
        assert "/remove" not in reader.get(GROUP).html
        for path, form in attempts.items():
            assert reader.submit(path, {"csrf": csrf, **form}).status == 403
            assert visitor.submit(path, form).status == 403
    assert users(state) == [USER]
    assert state.rows("SELECT name FROM triggerkit.event_instances") == ["one"]


def test_values_are_hidden_where_the_setting_says_so(world: EventsWorld, state: RunState) -> None:
    world.write([1])
    world.write([1], action="update")
    with reading(state, hides="true") as reader:
        page = reader.get(f"/events/topics/{POSTS}")
        assert "TRIGGERKIT_HIDE_VALUES is set" in page.text
        assert "updated 1" in page.text
        assert not re.search("post 1|before|title&", page.html)
        assert PASSWORD not in reader.get("/events").html


def test_hostile_names_and_values_are_text(
    world: EventsWorld, visitor: Visitor, state: RunState
) -> None:
    world.write([1])
    world.consume("one", group="search")
    for statement in (
        "UPDATE triggerkit.events SET record = %(x)s, key = to_jsonb(ARRAY[%(x)s])::text",
        "UPDATE triggerkit.event_groups SET name = %(name)s",
        "UPDATE triggerkit.event_instances SET name = %(name)s, topics = ARRAY[%(x)s]",
        "UPDATE triggerkit.event_offsets SET owner = %(x)s WHERE partition > 0",
        "UPDATE triggerkit.event_users SET name = %(name)s",
        "UPDATE triggerkit.topics SET label = %(x)s WHERE table_name = 'users'",
        "UPDATE triggerkit.event_offsets SET topic = %(x)s WHERE partition = 3",
    ):
        state.connection.execute(statement, {"x": HOSTILE, "name": HOSTILE_NAME})
    listed = visitor.get("/events")
    [group] = [link for link in listed.links if "/events/groups/" in link]
    pages = [listed, visitor.get(f"/events/topics/{POSTS}"), visitor.request("GET", group)]
    query = "%3Cscript%3E%22%27%3Cimg%20src%3Dx%20onerror%3D1%3E"
    paths = (
        f"/events?topics={query}&groups={query}", f"/events/topics/{query}",
        f"/events/groups/{query}", f"/events/topics/{POSTS}?filter=key:{query}+action:{query}",
        f"/events/topics/{POSTS}?cursor={query}", f"/events/topics/{POSTS}?key=%00",
        f"/events/topics/{POSTS}?cursor=999999999999999999", f"/events/topics/{POSTS}?cursor=0",
    )  # fmt: skip
    pages += [visitor.request("GET", f"/dashboard{path}") for path in paths]
    for page in pages:
        assert page.status in (200, 404, 422), page.text
        assert not re.search(r"<(script>|img)|5183|[\x1b\u202e]", page.html), page.html
    for page in pages[:3]:
        assert "&lt;script&gt;alert(1)" in page.html, page.text
    form = {"csrf": pages[2].csrf, "group": HOSTILE_NAME, "instance": HOSTILE_NAME}
    assert visitor.submit("/events/instances/remove", form).status == 303


def test_many_topics_groups_and_users_make_no_large_page_and_no_more_statements(
    world: EventsWorld, visitor: Visitor, state: RunState
) -> None:
    state.connection.execute(
        "INSERT INTO triggerkit.topics (name, label, database_id, schema_name, table_name) "
        "SELECT 'triggerkit.d.t' || n, 'd', 1, 'public', 't' || n FROM generate_series(1, 300) n"
    )
    state.connection.execute(
        "INSERT INTO triggerkit.event_groups (name) SELECT 'g' || n FROM generate_series(1, 300) n"
    )
    state.connection.execute(
        "INSERT INTO triggerkit.event_offsets (group_id, topic, partition, committed) "
        "SELECT g.id, t.name, p, 1 FROM triggerkit.event_groups g, generate_series(0, 7) p, "
        "(SELECT name FROM triggerkit.topics LIMIT 10) t"
    )
    state.connection.execute(
        "INSERT INTO triggerkit.event_users (name, password) "
        "SELECT 'u' || n, 'x' FROM generate_series(1, 300) n"
    )
    seen, path = set[str](), "/events"
    for _ in range(20):
        page = visitor.get(path)
        assert len(page.html) < 200_000
        seen |= {link for link in page.links if "/events/" in link}
        further = [link for link in page.links if "groups=" in link or "topics=" in link]
        if not further:
            break
        path = further[-1].removeprefix("/dashboard")
    assert sum("/events/groups/" in link for link in seen) == 300


@contextmanager
def into_kafka(state: RunState) -> Iterator[Visitor]:
    """Somebody where a consumer writes events into a Kafka, which does not answer."""
    prepare(state.settings)
    with psycopg.connect(state.settings.state_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO triggerkit.consumers (name, kind, database_id, definition, state, "
            "last_error) VALUES ('kafka', 'changes', 1, %s, 'active', %s)",
            [
                '{"via": "kafka", "tables": ["public.posts"], "name": "kafka"}',
                "Kafka: the broker is not reached",
            ],
        )
    with dashboard(state.settings) as visitor:
        yield visitor.log_in()


def test_the_way_into_kafka_is_shown_with_its_error_and_what_mends_it(state: RunState) -> None:
    with into_kafka(state) as visitor:
        page = visitor.get("/events").text
    assert "the broker is not reached" in page
    assert "0 events behind" in page
