"""Users of the events through the API."""

from __future__ import annotations

from tests.conformance.events.world import basic
from tests.integration.web.api.described import ApiSite


def test_a_user_is_added_listed_and_removed(site: ApiSite) -> None:
    made = site.done("POST", "/events/users", {"name": "alice"})
    given = basic("alice", made["password"])
    assert site.site.request("GET", "/kafka/topics", None, given).json == {}
    chosen = site.done("POST", "/events/users", {"name": "bob", "password": "chosen by the user"})
    assert chosen["password"] is None
    listed = site.get("/events/users")["data"]
    assert [(user["name"], user.keys()) for user in listed] == [
        ("alice", {"name", "created_at"}),
        ("bob", {"name", "created_at"}),
    ]
    assert site.call("POST", "/events/users", {"name": "bob"}).status == 409
    assert site.call("POST", "/events/users", {"name": "a:b"}).status == 422
    short = {"name": "carol", "password": "short"}
    assert site.call("POST", "/events/users", short).status == 422
    site.done("DELETE", "/events/users/alice")
    assert site.call("DELETE", "/events/users/alice").status == 404
    assert site.site.request("GET", "/kafka/topics", None, given).status == 401
    actions = [entry["action"] for entry in site.get("/audit")["data"]]
    assert actions == ["remove user of events", "add user of events", "add user of events"]
