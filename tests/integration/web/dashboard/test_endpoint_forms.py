"""Endpoints that are made, changed and deleted by forms; their secrets come out once or never."""

from __future__ import annotations

import re

from tests.integration.run_state import RunState
from tests.integration.web.dashboard.forms import fields_of, press
from tests.integration.web.dashboard.test_actions import audited
from tests.integration.web.dashboard.test_pages import make_consumer, posts
from tests.integration.web.dashboard.visitor import Visitor

NEW = "/new/endpoint"
AT = "/endpoints/local_endpoint"
URL = "http://127.0.0.1:3001/api/create-embedding-for-post"


def make(visitor: Visitor, **typed: str) -> str:
    given = {
        "name": "local_endpoint",
        "url": URL,
        "headers__0__name": "Authorization",
        "headers__0__value": "Bearer s3cret!",
        **typed,
    }
    made = press(visitor, NEW, visitor.get(NEW), "save", **given)
    return visitor.follow(made).text if made.status == 303 else made.html


def test_an_endpoint_is_made_and_its_secret_is_shown_once(
    state: RunState, visitor: Visitor
) -> None:
    shown = make(visitor, signing="generate")
    [secret] = re.findall(r"whsec_[\w+/=]+", shown)
    page = visitor.get(AT)
    assert "signed with 1 secret" in page.text
    assert "Authorization" in page.text
    for seen in (page, visitor.get(f"{AT}/edit"), visitor.get("/endpoints"), visitor.get("/audit")):
        assert secret not in seen.html
        assert "s3cret" not in seen.html
    [stored] = state.rows("SELECT headers FROM triggerkit.endpoints")
    assert b"s3cret" not in bytes(stored)
    assert audited(state)[-1] == "dashboard: endpoint.create"


def test_what_is_wrong_is_said_beside_its_field_and_no_secret_is_sent_back(
    state: RunState, visitor: Visitor
) -> None:
    wrong = [
        ({"name": "a b"}, "name", "an endpoint&#39;s name has 1 to 128"),
        ({"url": "ftp://127.0.0.1/x"}, "url", "cannot push to the URL"),
        ({"url": "http://10.1.2.3/"}, "url", "allow it with TRIGGERKIT_ALLOW_NETWORKS"),
        ({"headers__0__name": "Host"}, "headers", "is set by the sender"),
        ({"headers__0__value": ""}, "headers", "has an empty value"),
        (
            {"headers__1__name": "authorization", "headers__1__value": "s3cret!"},
            "headers",
            "is given twice",
        ),
        ({"signing": "own", "signing_secret": "s3cret!"}, "signing_secret", "a signing secret is"),
        ({"signing": "own"}, "signing_secret", "type the secret"),
    ]
    for given, field, sentence in wrong:
        html = make(visitor, **given)
        assert sentence in html.partition(f'id="{field}-wrong"')[2][:300], given
        assert "s3cret" not in html
        assert 'value="Authorization"' in html or "headers__0__name" in given
    assert state.rows("SELECT name FROM triggerkit.endpoints") == []
    make(visitor)
    assert "exists already" in make(visitor).partition('id="name-wrong"')[2][:200]


def test_a_header_is_kept_replaced_and_removed_and_a_secret_rotated(
    state: RunState, visitor: Visitor
) -> None:
    make(visitor, headers__1__name="X-One", headers__1__value="1", signing="generate")
    fingerprint = re.compile(r"(Authorization|X-One|X-Two) ([0-9a-f]{8})")
    first = dict(fingerprint.findall(visitor.get(AT).text))
    page = visitor.get(f"{AT}/edit")
    more = press(visitor, f"{AT}/edit", page, "more", headers__0__name="X-Two")
    assert "X-Two" in fields_of(more).values()
    changed = press(
        visitor, f"{AT}/edit", page, "save",
        url=f"{URL}?x=1", known__0__value="Bearer another!", known__1__remove="yes",
        headers__0__name="X-Two", headers__0__value="2", signing="rotate",
    )  # fmt: skip
    assert len(re.findall(r"whsec_[\w+/=]+", changed.html)) == 1
    after = visitor.get(AT).text
    assert "signed with 2 secrets" in after
    assert f"{URL}?x=1" in after
    second = dict(fingerprint.findall(after))
    assert sorted(second) == ["Authorization", "X-Two"]
    assert second["Authorization"] != first["Authorization"]
    kept = press(visitor, f"{AT}/edit", visitor.get(f"{AT}/edit"), "save", signing="retire")
    final = visitor.follow(kept).text
    assert dict(fingerprint.findall(final)) == second
    assert "signed with 1 secret:" in final
    assert audited(state)[-1] == "dashboard: endpoint.edit"


def test_an_endpoint_is_deleted_once_no_consumer_uses_it_and_its_name_is_typed(
    state: RunState, visitor: Visitor
) -> None:
    posts(state.settings)
    make_consumer(state.settings)
    assert "posts_push_consumer" in visitor.get(f"{AT}/delete").text
    form = {"csrf": visitor.get("/runs").csrf, "name": "local_endpoint"}
    assert visitor.submit(f"{AT}/delete", form).status == 409
    state.connection.execute("DELETE FROM triggerkit.consumers")
    page = visitor.get(f"{AT}/delete")
    assert press(visitor, f"{AT}/delete", page, "", name="local").status == 422
    assert press(visitor, f"{AT}/delete", page, "", name="local_endpoint").status == 303
    assert state.rows("SELECT name FROM triggerkit.endpoints") == []


def test_connect_leads_to_checks_and_shows_snippets_and_a_line_for_each_key_that_is_not_set(
    state: RunState, visitor: Visitor
) -> None:
    page = visitor.get("/connect")
    assert "/dashboard/checks" in page.links
    assert "checks that are in order" in visitor.get("/checks").text
    assert f"/dashboard{NEW}" in page.links
    for snippet in (
        "triggerkit endpoints create my_service",
        "/api/v1/consumers/posts_pull/receive",
        "/api/v1/tasks/work/trigger",
        "triggerkit events users add reader",
        'echo "TRIGGERKIT_READ_KEY=$(python -c',
    ):
        assert snippet in page.text
    assert 'echo "TRIGGERKIT_SECRET_KEY' not in page.text
    assert state.settings.triggerkit_secret_key is None or (
        state.settings.triggerkit_secret_key.get_secret_value() not in page.html
    )
