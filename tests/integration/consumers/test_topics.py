"""Topics: planned and made from `[events]`, and their tables captured."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.consumers.test_apply import URL, stored, with_databases
from tests.integration.pipeline import execute
from triggerkit.consumers.declare.apply import apply, plan
from triggerkit.consumers.declare.declaration import Declarations
from triggerkit.consumers.declare.plan import Plan
from triggerkit.errors import ConfigurationError
from triggerkit.events.declaration import read_events
from triggerkit.events.topics import Topic, note_old_rows, store_topics, topics
from triggerkit.settings import Settings

TABLES = """
CREATE TABLE posts (id bigint PRIMARY KEY);
ALTER TABLE posts REPLICA IDENTITY FULL;
CREATE SCHEMA crm; CREATE TABLE crm.people (id int PRIMARY KEY, name text)
"""


@pytest.fixture
def source(settings: Settings) -> Settings:
    asyncio.run(execute(settings, TABLES))
    return settings


def declared(**events: Any) -> Declarations:
    return Declarations(events=read_events(events))


def applied(settings: Settings, **events: Any) -> list[str]:
    return with_databases(  # type: ignore[no-any-return]
        settings, lambda source, state: apply(source, state, declared(**events), URL)
    )


def planned(settings: Settings, **events: Any) -> Plan:
    return with_databases(  # type: ignore[no-any-return]
        settings, lambda source, state: plan(source, state, declared(**events))
    )


def named(settings: Settings) -> list[tuple[str, str, bool]]:
    async def read(_: Any, state: Any) -> list[tuple[str, str, bool]]:
        found = await topics(state)
        return [(t.name, str(t.table_name), t.carries_old_rows) for t in found]

    return with_databases(settings, read)  # type: ignore[no-any-return]


def test_topics_are_planned_and_made_and_their_tables_published(source: Settings) -> None:
    events = {"tables": ["posts", "crm.people"], "database": "blog"}
    before = [(p.verb, p.kind, p.name) for p in planned(source, **events).preparations]
    assert ("create", "topic", "triggerkit.blog.posts") in before
    done = applied(source, **events)
    assert "created topic triggerkit.blog.crm.people: table: crm.people" in done
    assert named(source) == [
        ("triggerkit.blog.crm.people", "crm.people", False),
        ("triggerkit.blog.posts", "public.posts", True),
    ]
    published = (
        "SELECT tablename FROM pg_publication_tables WHERE pubname = 'triggerkit' ORDER BY 1"
    )
    assert stored(source, published) == [("people",), ("posts",)]
    assert planned(source, **events).preparations == []
    assert applied(source, **events) == []


def test_what_the_wal_carries_of_deleted_rows_is_noted_as_it_is_now(source: Settings) -> None:
    applied(source, tables=["posts", "crm.people"], database="blog")

    async def note(_: Any, state: Any) -> None:
        ((database_id,),) = stored(source, "SELECT id FROM triggerkit.databases")
        now = {("public", "posts"): False, ("crm", "people"): True, ("public", "gone"): True}
        await note_old_rows(state, database_id, now)

    with_databases(source, note)
    assert [carries for _, _, carries in named(source)] == [True, False]


def test_a_topic_that_is_not_declared_any_more_goes_and_comes_back(source: Settings) -> None:
    applied(source, tables=["posts", "crm.people"], database="blog")
    (gone,) = applied(source, tables=["posts"], database="blog")
    assert gone.startswith("deleted topic triggerkit.blog.crm.people")
    assert [name for name, _, _ in named(source)] == ["triggerkit.blog.posts"]
    applied(source, tables=["posts", "crm.people"], database="blog", partitions=3)
    assert stored(source, "SELECT DISTINCT partitions FROM triggerkit.topics") == [(3,)]
    assert len(named(source)) == 2


def test_a_star_stands_for_all_that_can_be_followed(source: Settings) -> None:
    asyncio.run(execute(source, "CREATE TABLE keyless (a int)"))
    warnings = planned(source, tables="*", database="blog").warnings
    assert [w for w in warnings if "public.keyless has no primary key" in w]
    applied(source, tables="*", database="blog")
    assert [name for name, _, _ in named(source)] == [
        "triggerkit.blog.crm.people",
        "triggerkit.blog.posts",
    ]


def test_the_database_has_its_own_name_for_a_label(source: Settings) -> None:
    applied(source, tables=["posts"])
    ((database,),) = stored(source, "SELECT name FROM triggerkit.databases")
    assert [name for name, _, _ in named(source)] == [f"triggerkit.{database}.posts"]


def test_a_table_that_is_not_there_is_named_and_nothing_is_made(source: Settings) -> None:
    with pytest.raises(ConfigurationError, match=r"events\.tables\.1: table public\.post does not"):
        applied(source, tables=["posts", "post"])
    with pytest.raises(ConfigurationError, match="our own state"):
        applied(source, tables=["triggerkit.runs"])
    assert stored(source, "SELECT FROM triggerkit.databases") == []


def test_two_tables_with_one_topic_are_refused(source: Settings) -> None:
    asyncio.run(execute(source, 'CREATE TABLE "crm.people" (id int PRIMARY KEY)'))
    with pytest.raises(ConfigurationError, match="would both have the topic"):
        applied(source, tables=["crm.people", '"crm.people"'])


def test_two_sources_do_not_share_a_topic(source: Settings) -> None:
    applied(source, tables=["posts"], database="blog")
    asyncio.run(
        execute(
            source,
            "INSERT INTO triggerkit.databases (name, slot_name, publication_name) "
            "VALUES ('other', 's2', 'p2')",
            "UPDATE triggerkit.topics SET database_id = "
            "(SELECT id FROM triggerkit.databases WHERE name = 'other')",
        )
    )
    with pytest.raises(ConfigurationError, match="is that of the database other already"):
        applied(source, tables=["posts"], database="blog")


def test_of_two_databases_that_want_one_name_at_once_the_first_keeps_it(source: Settings) -> None:
    applied(source, tables=["posts"], database="blog")

    async def store(_: Any, state: Any) -> None:
        await state.execute(
            "INSERT INTO triggerkit.databases (name, slot_name, publication_name, "
            "system_identifier) VALUES ('other', 's', 'p', '7')"
        )
        ((other,),) = stored(source, "SELECT id FROM triggerkit.databases WHERE name = 'other'")
        # Both saw that it is free.
        topic = Topic("triggerkit.blog.posts", "blog", "public", "posts", database_id=other)
        await store_topics(state, [topic], [])

    with pytest.raises(ConfigurationError, match=r"the topic triggerkit\.blog\.posts is that of"):
        with_databases(source, store)
