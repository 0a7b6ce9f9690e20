"""Plan and apply: from declarations to consumers, without losing what is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
import pytest

from tests.integration.pipeline import execute
from triggerkit.consumers.declare.apply import apply, plan
from triggerkit.consumers.declare.declaration import Declarations, Declared, DeclaredEndpoint
from triggerkit.consumers.declare.editing import Editor
from triggerkit.consumers.declare.manage import Consumers
from triggerkit.consumers.declare.plan import Plan
from triggerkit.consumers.definition import ConsumerDefinition, changes, rows
from triggerkit.encryption import Keyring
from triggerkit.errors import ConfigurationError, NameTaken, UnknownConsumer
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

TABLE = """
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE posts (id bigint PRIMARY KEY, title text, price numeric(10, 2), feeling mood,
    doc jsonb, flag boolean, updated_at timestamptz);
ALTER TABLE posts REPLICA IDENTITY FULL;
CREATE INDEX ON posts (updated_at)
"""
URL = "http://127.0.0.1:9"

Work = Callable[[psycopg.AsyncConnection, psycopg.AsyncConnection], Awaitable[Any]]


def with_databases(settings: Settings, work: Work) -> Any:
    async def connected() -> Any:
        async with (
            await connect(settings.source_dsn, "test") as source,
            await connect(settings.state_dsn, "test") as state,
        ):
            return await work(source, state)

    return asyncio.run(connected())


def applied(
    settings: Settings, *declared: Declared | DeclaredEndpoint, may_lose: bool = False
) -> list[str]:
    declarations = declarations_of(declared)
    return with_databases(  # type: ignore[no-any-return]
        settings,
        lambda source, state: apply(source, state, declarations, URL, may_lose=may_lose),
    )


def planned(settings: Settings, *declared: Declared | DeclaredEndpoint) -> Plan:
    declarations = declarations_of(declared)
    return with_databases(  # type: ignore[no-any-return]
        settings, lambda source, state: plan(source, state, declarations, public_url=URL)
    )


def declarations_of(declared: Sequence[Declared | DeclaredEndpoint]) -> Declarations:
    return Declarations(
        [d for d in declared if isinstance(d, Declared)],
        [d for d in declared if isinstance(d, DeclaredEndpoint)],
    )


def stored(settings: Settings, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(settings.state_dsn) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def source(settings: Settings) -> Settings:
    asyncio.run(execute(settings, TABLE))
    return settings


def of_code(definition: ConsumerDefinition, name: str = "embed") -> Declared:
    return Declared(name, definition, f"/api/{name}")


def test_applying_twice_changes_nothing(source: Settings) -> None:
    declared = of_code(rows("posts", sort_by="updated_at"))
    assert [str(s).split()[0] for s in planned(source, declared).steps] == ["create"]
    assert "created consumer embed" in applied(source, declared)
    assert planned(source, declared).steps == []
    assert applied(source, declared) == []


def test_a_change_is_planned_by_field_and_made(source: Settings) -> None:
    applied(source, of_code(rows("posts", batch_size=10)))
    changed = of_code(rows("posts", batch_size=20, actions=["insert"]))
    (step,) = planned(source, changed).steps
    assert step.details == ("actions: none → [insert]", "batch_size: 10 → 20")
    assert applied(source, changed) == ["changed consumer embed"]
    assert stored(source, "SELECT definition ->> 'batch_size' FROM triggerkit.consumers") == [
        ("20",)
    ]


def test_a_table_that_is_added_is_read_and_the_others_are_not_again(source: Settings) -> None:
    asyncio.run(execute(source, "CREATE TABLE notes (id int PRIMARY KEY)"))
    applied(source, of_code(rows("posts")))
    applied(source, of_code(rows("posts", "notes")))
    backfills = stored(source, "SELECT table_name FROM triggerkit.backfills ORDER BY id")
    assert backfills == [("posts",), ("notes",)]


def test_what_is_not_declared_any_more_stays_until_that_is_wanted(source: Settings) -> None:
    applied(source, of_code(rows("posts")), of_code(changes("posts"), "other"))
    (step,) = planned(source, of_code(changes("posts"), "other")).steps
    assert (step.verb, step.name) == ("delete", "embed")
    assert "its position in the log" in (step.loses or "")
    (line,) = applied(source, of_code(changes("posts"), "other"))
    assert line.startswith("left as it is")
    assert applied(source, of_code(changes("posts"), "other"), may_lose=True) == [
        "deleted consumer embed"
    ]
    assert stored(source, "SELECT name FROM triggerkit.endpoints") == [("other",)]


def test_a_consumer_of_the_api_is_left_alone(source: Settings) -> None:
    async def create(on: psycopg.AsyncConnection, state: psycopg.AsyncConnection) -> None:
        editor = Editor(on, state, Keyring([]), URL, "test")
        assert await editor.create("pulled", {"tables": ["posts"]}) == []
        with pytest.raises(NameTaken):
            await editor.create("pulled", {"tables": ["posts"]})

    with_databases(source, create)
    assert planned(source).steps == []
    assert stored(source, "SELECT action, subject, actor FROM triggerkit.audit") == [
        ("create", "consumer pulled", "test")
    ]


def test_editing_keeps_what_is_not_named_and_refuses_what_does_not_fit(source: Settings) -> None:
    async def edit(on: psycopg.AsyncConnection, state: psycopg.AsyncConnection) -> None:
        editor, consumers = Editor(on, state, Keyring([]), URL, "test"), Consumers(state, "test")
        await editor.create("pulled", {"tables": ["posts"], "batch_size": 7})
        await editor.edit("pulled", {"actions": ["insert"]}, may_lose=False)
        for wrong in ({"batch_size": 0}, {"nothing": 1}, {"tables": ["nowhere"]}):
            with pytest.raises(ConfigurationError, match=next(iter(wrong))):
                await editor.edit("pulled", wrong, may_lose=False)
        with pytest.raises(ConfigurationError, match="delivered again"):
            await editor.edit("pulled", {"group_by": ["title"]}, may_lose=False)
        definition = (await consumers.find("pulled")).definition
        assert (definition.batch_size, definition.actions) == (7, ("insert",))
        with pytest.raises(UnknownConsumer, match="known consumers: pulled"):
            await editor.edit("puled", {}, may_lose=False)

    with_databases(source, edit)


def test_a_group_gathers_the_cursors_at_the_one_furthest_back(source: Settings) -> None:
    applied(source, of_code(changes("posts")))
    execute_state = "UPDATE triggerkit.cursors SET position = 100 - partition"
    with psycopg.connect(source.state_dsn, autocommit=True) as connection:
        connection.execute(execute_state)
    grouped = of_code(changes("posts", group_by=["title"]))
    applied(source, grouped, may_lose=True)
    assert stored(source, "SELECT partition, position FROM triggerkit.cursors") == [(-1, 93)]
    applied(source, of_code(changes("posts")), may_lose=True)
    places = stored(source, "SELECT partition, position FROM triggerkit.cursors ORDER BY 1")
    assert places == [(p, 93) for p in range(8)]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"sort_by": "created_at"}, "sort_by: table public.posts has no column 'created_at'"),
        ({"when_changed": ["titel"]}, "when_changed: table public.posts has no column 'titel'"),
        ({"group_by": ["x"]}, "group_by: "),
        ({"filters": [("x", "==", 1)]}, "filters.0.column: "),
        ({"filters": [("id", "==", "one")]}, "filters.0.value: 'one' is not a value of column"),
        ({"filters": [("price", "in", [1, "x"])]}, "filters.0.value.1: 'x' is not a value"),
        ({"filters": [("feeling", "==", "bored")]}, "whose type is public.mood"),
        ({"filters": [("doc", "==", "{}")]}, "use a filter function"),
        ({"sort_by": "updated_at", "start": "someday"}, "start: 'someday' is not a value"),
    ],
)
def test_what_does_not_fit_the_table_is_named_and_nothing_is_changed(
    source: Settings, options: dict[str, Any], problem: str
) -> None:
    applied(source, of_code(rows("posts"), "before"))
    with pytest.raises(ConfigurationError) as raised:
        applied(
            source,
            of_code(rows("posts", batch_size=9), "before"),
            of_code(rows("posts", **options)),
        )
    assert problem in str(raised.value)
    found = stored(source, "SELECT name, definition ->> 'batch_size' FROM triggerkit.consumers")
    assert found == [("before", "1")]


def test_the_values_of_filters_are_written_as_messages_have_them(source: Settings) -> None:
    filters = [("updated_at", ">=", "2026-01-01"), ("price", "==", 3), ("flag", "==", True)]
    applied(source, of_code(rows("posts", filters=filters)))
    (found,) = stored(source, "SELECT definition -> 'filters' FROM triggerkit.consumers")[0]
    values = [(f["value"], f["is_number"]) for f in found]
    assert values == [
        ("2026-01-01T00:00:00.000000Z", False),
        ("3", True),
        (True, False),
    ]
    assert planned(source, of_code(rows("posts", filters=filters))).steps == []


def test_a_sort_column_without_an_index_is_warned_of(source: Settings) -> None:
    (warning,) = planned(source, of_code(rows("posts", sort_by="title"))).warnings
    assert 'CREATE INDEX CONCURRENTLY ON "public"."posts" ("title");' in warning
    assert planned(source, of_code(rows("posts", sort_by="updated_at"))).warnings == []


def test_the_file_declares_endpoints_and_pauses(source: Settings) -> None:
    endpoint = DeclaredEndpoint("local", "/api/hook")
    paused = Declared(
        "a",
        changes("posts", paused=True).model_copy(update={"endpoint": "local"}),
        managed_by="file",
    )
    done = applied(source, endpoint, paused)
    assert done[-2:] == ["created endpoint local", "created consumer a"]
    assert stored(source, "SELECT url FROM triggerkit.endpoints") == [(f"{URL}/api/hook",)]
    resumed = Declared(
        "a", paused.definition.model_copy(update={"paused": False}), managed_by="file"
    )
    assert applied(source, endpoint, resumed) == ["resumed consumer a"]
    assert applied(source, may_lose=True) == ["deleted consumer a", "deleted endpoint local"]


def test_an_endpoint_that_does_not_exist_is_named(source: Settings) -> None:
    lost = Declared(
        "a", changes("posts").model_copy(update={"endpoint": "local"}), managed_by="file"
    )
    with pytest.raises(ConfigurationError, match="no endpoint is named 'local'"):
        applied(source, of_code(changes("posts"), "before"), lost)
    assert stored(source, "SELECT name FROM triggerkit.consumers") == [], "nothing was made"


def test_a_declared_replay_is_made_once(source: Settings) -> None:
    applied(source, of_code(changes("posts")))
    again = of_code(changes("posts", replay_from="beginning"))
    assert applied(source, again) == ["replayed consumer embed"]
    assert applied(source, again) == []
    assert stored(source, "SELECT replay_epoch FROM triggerkit.consumers") == [(1,)]


def test_the_plan_shows_all_that_apply_makes_and_apply_says_it(source: Settings) -> None:
    declared = of_code(rows("posts"))
    shown = [str(step).splitlines()[0] for step in planned(source, declared).preparations]
    assert shown[0] == "create publication triggerkit"
    assert shown[1].startswith("create slot triggerkit_")
    assert shown[2] == "create endpoint embed"
    done = applied(source, declared)
    assert "created publication triggerkit: add public.posts" in done
    assert f"created endpoint embed: url: {URL}/api/embed" in done
    assert planned(source, declared).preparations == []
    assert applied(source, declared) == []


def test_what_was_lost_since_is_planned_and_told(source: Settings) -> None:
    declared = of_code(rows("posts"))
    applied(source, declared)
    asyncio.run(
        execute(
            source,
            "ALTER PUBLICATION triggerkit DROP TABLE posts",
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE database = current_database()",
            "UPDATE triggerkit.endpoints SET url = 'http://other/api/embed'",
        )
    )
    publication, slot, endpoint = planned(source, declared).preparations
    assert publication.details == ("add public.posts",)
    assert (slot.verb, slot.kind) == ("create", "slot")
    assert "a gap of each consumer" in slot.details[0]
    assert endpoint.details == (f"url: http://other/api/embed → {URL}/api/embed",)
    done = applied(source, declared)
    assert "changed publication triggerkit: add public.posts" in done
    assert any(line.startswith("created replication slot") for line in done)
    assert f"changed endpoint embed: url: http://other/api/embed → {URL}/api/embed" in done
