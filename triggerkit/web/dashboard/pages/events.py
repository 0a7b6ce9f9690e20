"""The pages of events: topics, groups and users, and what comes on one topic, or becomes of a
group."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from triggerkit.consumers.declare.topics import KAFKA_CONSUMER
from triggerkit.consumers.health import consumer_health
from triggerkit.errors import ConfigurationError
from triggerkit.events.event import KINDS
from triggerkit.events.kafka.faults import SILENT, KafkaFault, remedy_of, said
from triggerkit.events.newest import READ_CHARS, Newest, newest_events
from triggerkit.events.source import View
from triggerkit.events.survey import (
    MOST_BEHIND,
    SeenGroup,
    look_at_groups,
    look_at_topics,
    measure,
    place_topics,
)
from triggerkit.events.users import list_users
from triggerkit.web.api.problems import NotFound
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown
from triggerkit.web.dashboard.search import Qualifier, Search

#: Topics and groups on a page, the users that it lists, and the events of a topic's page.
PAGE_TOPICS, PAGE_GROUPS, MOST_USERS, PAGE_EVENTS = 50, 20, 200, 50

#: Seconds that a page waits for Kafka.
KAFKA_S = 2.0

QUALIFIERS = (
    Qualifier("action", "updated", tuple(dict.fromkeys(KINDS.values()))),
    Qualifier("key", "17"),
)


async def show_events(asked: Asked) -> Answer:
    """Show topics, groups, users, and how far the events are in Kafka."""
    return await events_page(asked)


async def events_page(asked: Asked, problem: str = "", name: str = "", status: int = 200) -> Shown:
    """Return the page; with what is wrong with the `name` of a user that was typed."""
    query = asked.query
    kafka = bool(asked.call.settings.kafka)
    async with asked.call.state() as state:
        topics = await look_at_topics(state, query.get("topics", ""), PAGE_TOPICS + 1)
        groups = await look_at_groups(state, query.get("groups", ""), PAGE_GROUPS + 1, kafka=kafka)
        users = await list_users(state)
        is_in_kafka = kafka or any(t.is_in_kafka for t in topics)
        sinks = await consumer_health(state) if is_in_kafka else []
    unread = None
    if kafka:
        names = [topic.name for topic in topics]
        view, unread = await _in_kafka(asked, names, groups)
        place_topics(topics, view)
        measure(groups, view)
    values = {
        "topics": topics[:PAGE_TOPICS],
        "groups": groups[:PAGE_GROUPS],
        "users": users[:MOST_USERS],
        "users_left_out": len(users[MOST_USERS:]),
        "is_in_kafka": is_in_kafka,
        "reads_kafka": kafka,
        "unread": unread,
        "sink": next((one for one in sinks if one.name == KAFKA_CONSUMER), None),
        "more_topics": _after(asked, "topics", [one.name for one in topics], PAGE_TOPICS),
        "more_groups": _after(asked, "groups", [one.name for one in groups], PAGE_GROUPS),
        "first": asked.link("events") if "topics" in query or "groups" in query else None,
        "most": MOST_BEHIND,
        "problem": problem,
        "typed": name,
    }
    return Shown("events.html", "Events", values, status)


async def show_topic(asked: Asked) -> Answer:
    """Show the newest events of a topic that fit, as they come."""
    name = asked.path("topic")
    search = Search.of(asked, QUALIFIERS)
    problem, kind = search.problem, search.given.get("action")
    if problem is None and kind is not None and kind not in KINDS.values():
        problem = f"action: there is no {kind}; there are {', '.join(QUALIFIERS[0].values)}"
    before = asked.query.get("cursor")
    if before is not None and not (before.isascii() and before.isdecimal() and len(before) < 19):
        raise NotFound("cursor: it is no offset")
    async with asked.call.state() as state:
        found = await newest_events(
            state,
            name,
            None if before is None else int(before),
            None if problem else kind,
            None if problem else search.given.get("key"),
            PAGE_EVENTS,
        )
    if found is None:
        raise NotFound("there is no such topic; Events lists those that are declared")
    return _topic_page(asked, name, search, problem, found)


def _topic_page(
    asked: Asked, name: str, search: Search, problem: str | None, found: Newest
) -> Shown:
    here = ("events", "topics", name)
    values = {
        "name": name,
        "search": search,
        "problem": problem,
        "found": found,
        "events": [] if problem else found.events,
        "most_chars": READ_CHARS,
        "reads_kafka": bool(asked.call.settings.kafka),
        "first": asked.link(*here, **search.query) if "cursor" in asked.query else None,
        "next": asked.link(*here, **search.query, cursor=found.before) if found.before else None,
    }
    return Shown("event_topic.html", f"Topic {name}", values, 422 if problem else 200)


async def show_group(asked: Asked) -> Answer:
    """Show a group: its instances, and where it is in each partition."""
    kafka = bool(asked.call.settings.kafka)
    async with asked.call.state() as state:
        found = await look_at_groups(state, "", 1, asked.path("group"), kafka=kafka)
    if not found:
        raise NotFound("there is no such group; Events lists those that consumed")
    unread = None
    if kafka:
        view, unread = await _in_kafka(asked, (), found)
        measure(found, view)
    values = {"group": found[0], "most": MOST_BEHIND, "unread": unread}
    return Shown("event_group.html", f"Group {found[0].name}", values)


async def _in_kafka(
    asked: Asked, names: Sequence[str], groups: Sequence[SeenGroup]
) -> tuple[View | None, str | None]:
    """Return the topics as Kafka has them, those of `groups` too, or why that is not known."""
    assert asked.call.view_of is not None
    wanted = {*names, *(topic for group in groups for topic in group.topics)}
    try:
        async with asyncio.timeout(KAFKA_S):
            return await asked.call.view_of(wanted), None
    except TimeoutError:
        fault = said(SILENT)
    except KafkaFault as error:
        fault = str(error)
    except ConfigurationError as error:
        return None, str(error)
    return None, f"{fault}; {remedy_of(fault)}"


def _after(asked: Asked, list_: str, names: list[str], limit: int) -> str | None:
    """Return the link to what follows a list that has more than `limit`."""
    if len(names) <= limit:
        return None
    kept = {key: value for key, value in asked.query.items() if key in ("topics", "groups")}
    return asked.link("events", **{**kept, list_: names[limit - 1]})


ROUTES = (
    Route("/events", show_events),
    Route("/events/topics/{topic}", show_topic),
    Route("/events/groups/{group}", show_group),
)
