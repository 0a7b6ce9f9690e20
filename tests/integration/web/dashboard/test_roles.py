"""Who may only look, and what is hidden."""

from __future__ import annotations

import re

import orjson
import pytest
from pydantic import SecretStr

from tests.integration.run_state import RunState, new_run
from tests.integration.serving import serving
from tests.integration.web.api.described import KEY
from tests.integration.web.dashboard.followed import followed
from tests.integration.web.dashboard.visitor import Visitor, application, dashboard, keyed
from triggerkit.settings import Settings
from triggerkit.web.api.table import OPERATIONS
from triggerkit.web.dashboard.routes import routes
from triggerkit.web.dashboard.session import Sessions

READ_KEY = "only-for-looking-1234567890"


def test_the_read_key_opens_all_pages_and_changes_nothing(state: RunState) -> None:
    [ref] = state.accept(new_run())
    with dashboard(state.settings, TRIGGERKIT_READ_KEY=READ_KEY) as reader:
        assert reader.submit("/login", {"key": READ_KEY}).status == 303
        page = reader.get(f"/runs/{ref.id}")
        assert "may only look" in page.text
        assert "/replay" not in page.html
        assert "/cancel" not in page.html
        for route in routes():
            path = re.sub(r"\{\w+\}", ref.id, route.path)
            if route.post is not None and not route.is_open and route.path != "/logout":
                refused = reader.submit(path, {"csrf": page.csrf})
                assert (refused.status, "may only look" in refused.text) == (403, True), path
        assert state.statuses() == ["queued"]
        assert reader.submit("/logout", {"csrf": page.csrf}).status == 303
        assert state.rows("SELECT detail FROM triggerkit.audit") == [{"may": "look"}]


def test_a_session_of_the_read_key_ends_with_that_key_and_becomes_no_other(
    settings: Settings,
) -> None:
    secret, read = SecretStr(KEY), SecretStr(READ_KEY)
    cookie = Sessions(secret, read).enter(READ_KEY)
    assert cookie is not None
    session = Sessions(secret, read).read(cookie)
    assert session is not None
    assert not session.may_change
    assert Sessions(secret, SecretStr(f"another {READ_KEY}")).read(cookie) is None
    assert Sessions(secret).read(cookie) is None
    # Who has the read key could sign by it: where it is the only one, nobody may change anything.
    forged = Sessions(read).begin()
    assert Sessions(secret, read).read(forged) is None
    assert Sessions(None, read).read(forged) is None
    assert Sessions(None, read).read_link(Sessions(read).link()) is None
    own = Sessions(None, read).enter(READ_KEY)
    found = None if own is None else Sessions(None, read).read(own)
    assert found is not None
    assert not found.may_change
    assert Sessions(secret).enter(READ_KEY) is None
    assert Sessions(secret).enter("") is None


@pytest.mark.parametrize("hides", ["false", "true"])
def test_the_api_answers_the_read_key_and_changes_nothing_for_it(
    state: RunState, hides: str
) -> None:
    [ref] = state.accept(new_run(payload=b'{"secret":1}'))
    given = keyed(state.settings, TRIGGERKIT_READ_KEY=READ_KEY, TRIGGERKIT_HIDE_VALUES=hides)
    bearer = {"authorization": f"Bearer {READ_KEY}", "content-type": "application/json"}
    with serving(application(given)) as site:
        found = site.request("GET", f"/api/v1/runs/{ref.id}", headers=bearer)
        assert found.status == 200
        assert found.json["payload"] == ({"secret": 1} if hides == "false" else None)
        owner = {"authorization": f"Bearer {KEY}"}
        assert site.request("GET", f"/api/v1/runs/{ref.id}", headers=owner).json["payload"]
        for operation in OPERATIONS:
            if operation.method != "GET" and operation.handle is not None:
                path = re.sub(r"\{\w+\}", ref.id, operation.path)
                refused = site.request(operation.method, f"/api/v1{path}", b"{}", bearer)
                assert refused.status == 403, (operation.method, path, refused)
                assert "read key" in orjson.dumps(refused.json).decode()
    assert state.statuses() == ["queued"]


def test_values_are_hidden_from_everybody_where_the_setting_says_so(state: RunState) -> None:
    hiding = RunState(
        Settings.parse({**state.settings.environment(), "TRIGGERKIT_HIDE_VALUES": "true"}),
        state.connection,
        state.redis,
        state.namespace,
    )
    with followed(hiding) as visitor:
        [*_, run] = state.rows("SELECT id FROM triggerkit.runs ORDER BY id")
        [*_, position] = state.rows("SELECT position FROM triggerkit.events ORDER BY position")
        for path in (f"/runs/{run}", f"/trace/{position}"):
            page = visitor.get(path)
            shown = page.text.partition("Column Before After")[2]
            assert re.match(r" text hidden hidden id Payload| text hidden hidden id", shown)
            assert "hello" not in page.text
            assert "two" not in page.text.replace("two machines", "")
        assert page_says_hidden(visitor, f"/runs/{run}")


def test_the_read_key_sees_no_value_in_any_answer_where_they_are_hidden(state: RunState) -> None:
    given = {"TRIGGERKIT_HIDE_VALUES": "true", "TRIGGERKIT_READ_KEY": READ_KEY}
    hiding = RunState(
        Settings.parse({**state.settings.environment(), **given}),
        state.connection,
        state.redis,
        state.namespace,
    )
    with followed(hiding) as visitor:
        [*_, run] = state.rows("SELECT id FROM triggerkit.runs ORDER BY id")
        [*_, position] = state.rows("SELECT position FROM triggerkit.events ORDER BY position")
        ids = {"{id}": run, "{position}": str(position), "{name}": "tell", "{consumer}": "tell"}
        bearer = {"authorization": f"Bearer {READ_KEY}"}
        owner = {"authorization": f"Bearer {KEY}"}
        seen_by_owner = ""
        for operation in OPERATIONS:
            if operation.method == "GET":
                path = re.sub(r"\{\w+\}", lambda found: ids[found[0]], operation.path)
                path = f"/api/v1{path}" + ("?run=" + run if path == "/why" else "")
                answer = visitor.request("GET", path, **bearer).html
                assert not [v for v in ("hello", '"two"', '"one"', '"done"') if v in answer], path
                seen_by_owner += visitor.request("GET", path, **owner).html
        assert all(v in seen_by_owner for v in ("hello", '"two"', '"one"', '"done"'))
        described = visitor.request("GET", "/api/v1/openapi.json", **bearer).html
        assert described == visitor.request("GET", "/api/v1/openapi.json", **owner).html


def page_says_hidden(visitor: Visitor, path: str) -> bool:
    """Whether payload, output and log are said to be hidden."""
    return visitor.get(path).text.count("TRIGGERKIT_HIDE_VALUES is set") == 3
