"""Consumers that are made, changed and deleted by forms: as commands and the API do it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from psycopg import sql

from tests.integration.run_state import RunState
from tests.integration.web.api.described import api
from tests.integration.web.api.guide import CONSUMER, ENDPOINT
from tests.integration.web.dashboard.followed import followed
from tests.integration.web.dashboard.forms import fields_of, press
from tests.integration.web.dashboard.test_actions import audited
from tests.integration.web.dashboard.test_pages import HOSTILE, make_consumer, posts
from tests.integration.web.dashboard.visitor import Seen, Visitor
from triggerkit.consumers.definition import ConsumerDefinition, TableName

AT = "/consumers/posts_push_consumer"


def prepared(state: RunState, visitor: Visitor) -> Seen:
    """The form of a consumer of `posts`, with an endpoint to choose."""
    posts(state.settings)
    with api(state.settings) as site:
        site.done("POST", "/endpoints", ENDPOINT)
    first = visitor.get("/new/consumer?endpoint=local_endpoint")
    assert "public.posts" in first.text
    assert "Create consumer" not in first.text
    page = press(visitor, "/new/consumer", first, "tables", tables__0="public.posts")
    assert "updated_at (timestamp with time zone)" in page.text
    return page


def definition(state: RunState, name: str) -> dict[str, Any]:
    state.connection.execute("SELECT 1")
    [stored] = state.rows(f"SELECT definition FROM triggerkit.consumers WHERE name = '{name}'")
    return dict(stored)


def test_the_guides_consumer_is_made_by_the_form_as_it_is_by_the_api(
    state: RunState, visitor: Visitor
) -> None:
    page = prepared(state, visitor)
    made = press(
        visitor, "/new/consumer", page, "save",
        name="posts_push_consumer", sort_by="updated_at", start="beginning",
    )  # fmt: skip
    assert made.status == 200, made.text
    assert "CREATE INDEX" in made.text
    assert "to local_endpoint" in visitor.get(AT).text
    stored = definition(state, "posts_push_consumer")
    given = ConsumerDefinition.parse(CONSUMER, "posts_push_consumer")
    assert stored == given.as_json()
    assert state.rows("SELECT table_name FROM triggerkit.backfills") == ["posts"]
    assert audited(state)[-1] == "dashboard: create"


def test_every_wrong_field_is_said_beside_it_and_what_was_typed_stays(
    state: RunState, visitor: Visitor
) -> None:
    page = prepared(state, visitor)
    wrong: list[tuple[dict[str, str], str, str]] = [
        ({"batch_size": "0"}, "batch_size", "Input should be greater than or equal to 1"),
        ({"batch_size": "many"}, "batch_size", "Input should be a valid integer"),
        ({"kind": "columns"}, "kind", "Input should be &#39;rows&#39; or &#39;changes&#39;"),
        ({"name": "a b"}, "name", "&#39;a b&#39; is not a valid consumer name"),
        ({"name": ""}, "name", "is not a valid consumer name"),
        ({"name": HOSTILE}, "name", "is not a valid consumer name"),
        ({"tables.0": "public.postz"}, "tables", "did you mean public.posts?"),
        ({"tables.0": '"'}, "tables", "is not a table"),
        ({"tables.0": "pg_catalog.pg_authid"}, "tables", "is of Postgres&#39; own catalog"),
        ({"sort_by": "updated"}, "sort_by", "did you mean updated_at?"),
        ({"filters.0.column": "titel"}, "filters.0", "did you mean title?"),
        (
            {"filters.0.column": "id", "filters.0.value": "one"},
            "filters.0",
            "&#39;one&#39; is not a value of column &#39;id&#39;",
        ),
        (
            {"filters.7.column": "id", "filters.7.operator": "is_null", "filters.7.value": "x"},
            "filters.0",
            "takes no value",
        ),
        ({"filter": "sys:exit"}, "filter", "sys"),
        ({"start": "from", "start_value": "yesterday?"}, "start", "sort_by must name one"),
        ({"endpoint": "nowhere"}, "endpoint", "no endpoint is named &#39;nowhere&#39;"),
        ({"delivery": "direct", "task": "wrok"}, "task", "did you mean work?"),
        ({"delivery": "pull", "body": "event"}, "body", "name the endpoint"),
    ]
    for given, field, sentence in wrong:
        form = {**fields_of(page), "name": "posts", **given, "do": "save"}
        if given.keys() & {"filters.0.column"}:
            form["filters.0.operator"] = "=="
        seen = visitor.submit("/new/consumer", form)
        assert seen.status == 422, (given, seen.text)
        _, _, after = seen.html.partition(f'id="{field}-wrong"')
        assert sentence in after[:400], (given, seen.text)
        assert "Nothing was made." in seen.text
        kept = fields_of(seen)
        for name, text in given.items():
            if not name.startswith(("filters.7", "kind", "name")):
                assert text in kept.values(), (name, kept)
    assert state.rows("SELECT name FROM triggerkit.consumers") == []


def test_without_a_start_of_its_own_a_consumer_begins_as_its_kind_does(
    state: RunState, visitor: Visitor
) -> None:
    page = prepared(state, visitor)
    for kind, start in (("rows", "beginning"), ("changes", "end")):
        made = press(visitor, "/new/consumer", page, "save", name=kind, kind=kind)
        assert made.status == 303, made.text
        assert definition(state, kind)["start"] == start


def test_a_name_that_is_taken_is_said_beside_the_name(state: RunState, visitor: Visitor) -> None:
    page = prepared(state, visitor)
    with api(state.settings) as site:
        site.done("POST", "/consumers", CONSUMER)
    seen = press(visitor, "/new/consumer", page, "save", name="posts_push_consumer")
    assert seen.status == 409
    assert "exists already, created by api" in seen.html.partition('id="name-wrong"')[2][:200]


def test_a_consumer_is_changed_and_what_is_lost_is_asked_for(
    state: RunState, visitor: Visitor
) -> None:
    posts(state.settings)
    make_consumer(state.settings)
    page = visitor.get(f"{AT}/edit")
    before = definition(state, "posts_push_consumer")
    kept = press(visitor, f"{AT}/edit", page, "save")
    assert kept.status in (200, 303), kept.text
    assert definition(state, "posts_push_consumer") == before
    for given in (
        {"filters__0__column": "title", "filters__0__operator": "in", "filters__0__value": "a, b"},
        {"filters__0__column": "id", "filters__0__operator": ">", "filters__0__value": "7"},
        {"filters__0__column": "title", "filters__0__operator": "!=", "filters__0__value": ""},
        {"batch_size": "25", "actions__0": "insert", "actions__3": "read", "max_attempts": "3"},
        {"delivery": "pull", "timeout_s": "12.5"},
    ):
        changed = press(visitor, f"{AT}/edit", visitor.get(f"{AT}/edit"), "save", **given)
        assert changed.status in (200, 303), changed.text
        after = definition(state, "posts_push_consumer")
        again = press(visitor, f"{AT}/edit", visitor.get(f"{AT}/edit"), "save")
        assert again.status in (200, 303), again.text
        assert definition(state, "posts_push_consumer") == after
    assert (after["batch_size"], after["actions"], after["endpoint"]) == (
        25, ["insert", "read"], None,
    )  # fmt: skip
    assert after["filters"][0]["operator"] == "!="
    asked = press(visitor, f"{AT}/edit", visitor.get(f"{AT}/edit"), "save", group_by__0="title")
    assert asked.status == 409
    assert "may be delivered again" in asked.text
    assert definition(state, "posts_push_consumer")["group_by"] is None
    done = press(visitor, f"{AT}/edit", asked, "save", may_lose="yes")
    assert done.status in (200, 303), done.text
    assert definition(state, "posts_push_consumer")["group_by"] == ["title"]
    assert audited(state)[-1] == "dashboard: change"


def test_a_consumer_is_deleted_once_its_name_is_typed(state: RunState, visitor: Visitor) -> None:
    posts(state.settings)
    make_consumer(state.settings)
    page = visitor.get(f"{AT}/delete")
    wrong = press(visitor, f"{AT}/delete", page, "", name="posts")
    assert (wrong.status, "this is not its name" in wrong.text) == (422, True)
    assert state.rows("SELECT name FROM triggerkit.consumers") == ["posts_push_consumer"]
    assert press(visitor, f"{AT}/delete", page, "", name="posts_push_consumer").status == 303
    assert state.rows("SELECT name FROM triggerkit.consumers") == []
    assert visitor.get(f"{AT}/delete", 404)
    assert audited(state)[-1] == "dashboard: delete"


@pytest.mark.parametrize("managed_by", ["code", "file"])
def test_what_is_declared_is_only_looked_at_and_where_it_is_is_said(
    state: RunState, visitor: Visitor, managed_by: str
) -> None:
    posts(state.settings)
    make_consumer(state.settings)
    form = fields_of(visitor.get(f"{AT}/edit"))
    for table in ("consumers", "endpoints"):
        state.connection.execute(f"UPDATE triggerkit.{table} SET managed_by = '{managed_by}'")
    where = {"code": "in code, by a task's on=", "file": "in triggerkit.toml"}[managed_by]
    for at in (AT, "/endpoints/local_endpoint"):
        page = visitor.get(at)
        assert where in page.text
        assert f"/dashboard{at}/edit" not in page.links
        for verb in ("edit", "delete"):
            visitor.get(f"{at}/{verb}", 409)
            refused = visitor.submit(f"{at}/{verb}", {**form, "do": "save"})
            assert (refused.status, "change it there" in refused.text) == (409, True)
    assert len(state.rows("SELECT name FROM triggerkit.consumers")) == 1


def test_names_that_cannot_be_seen_are_sent_back_as_they_are(
    state: RunState, visitor: Visitor
) -> None:
    name = HOSTILE[:60]
    state.connection.execute(
        sql.SQL("CREATE TABLE public.{} (id bigint PRIMARY KEY, {} text)").format(
            sql.Identifier(name), sql.Identifier("a\x1b\u202eb")
        )
    )
    first = visitor.get("/new/consumer")
    table = str(TableName("public", name))
    page = press(visitor, "/new/consumer", first, "tables", tables__0=table)
    column = {"filters__0__column": "a\x1b\u202eb", "filters__0__operator": "=="}
    tried = press(
        visitor, "/new/consumer", page, "preview", filters__0__value="\x1b\u202e", **column
    )
    assert "There is nothing to try it on" in tried.text
    made = press(visitor, "/new/consumer", tried, "save", name="hostile", delivery="pull")
    assert made.status == 303, made.text
    stored = definition(state, "hostile")
    assert stored["tables"] == [table]
    assert (stored["filters"][0]["column"], stored["filters"][0]["value"]) == (
        "a\x1b\u202eb", "\x1b\u202e",
    )  # fmt: skip


def test_a_filter_is_tried_on_the_newest_messages(state: RunState) -> None:
    with followed(state) as visitor:
        first = visitor.get("/new/consumer")
        page = press(visitor, "/new/consumer", first, "tables", tables__0="public.items")

        def tried(**typed: str) -> str:
            seen = press(visitor, "/new/consumer", page, "preview", **typed)
            assert seen.status == 200, seen.text
            return seen.text

        assert "2 of 2 newest messages would be sent" in tried()
        found = tried(filters__0__column="text", filters__0__value="two", filters__0__operator="==")
        assert "1 of 2 newest messages would be sent" in found
        assert "filtered by text == two" in found
        assert "update is not among its actions (insert)" in tried(actions__0="insert")
        assert "0 of 2" in tried(filter="tests.integration.web.dashboard.wanting:nothing")
        refused = press(visitor, "/new/consumer", page, "preview", filter="nowhere:at_all")
        assert refused.status == 422
        assert 'id="filter-wrong"' in refused.html
        assert state.rows("SELECT name FROM triggerkit.consumers") == ["tell"]


def test_where_the_log_has_nothing_the_rows_are_tried(state: RunState, visitor: Visitor) -> None:
    page = prepared(state, visitor)
    nothing = press(visitor, "/new/consumer", page, "preview")
    assert "There is nothing to try it on" in nothing.text
    state.connection.execute(
        "INSERT INTO public.posts (title) SELECT 'About ' || n FROM generate_series(1, 30) n"
    )
    seen = press(
        visitor, "/new/consumer", page, "preview",
        filters__0__column="id", filters__0__operator=">", filters__0__value="7",
    )  # fmt: skip
    assert "23 of 30 rows would be sent" in seen.text
    assert "The first 10 of them are shown." in seen.text
    assert "About 1" in seen.text


def test_a_filter_function_that_takes_too_long_is_said_beside_it(
    state: RunState, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.consumers.trace.preview.CALLS_S", 1.0)
    page = prepared(state, visitor)
    state.connection.execute("INSERT INTO public.posts (title) VALUES ('one')")
    never = "tests.integration.web.dashboard.wanting:never"
    seen = press(visitor, "/new/consumer", page, "preview", filter=never)
    assert seen.status == 422
    assert 'id="filter-wrong"' in seen.html
    assert "it took more than 1 s over 1 messages" in seen.text


def test_of_those_who_make_one_consumer_at_once_one_does_and_the_others_are_told(
    state: RunState, visitor: Visitor
) -> None:
    page = prepared(state, visitor)

    def make(form: int) -> int:
        # Each has a form of their own.
        given = {"name": "same", "delivery": "pull", "once": f"form {form}"}
        return press(visitor, "/new/consumer", page, "save", **given).status

    with ThreadPoolExecutor(4) as threads:
        made, *others = sorted(threads.map(make, range(4)))
    assert (made in (200, 303), others) == (True, [409] * 3)
    assert audited(state).count("dashboard: create") == 1
