"""Consumers and their backfills through the API; answers are held against its description."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.integration.web.api.described import ApiSite, api
from tests.integration.web.api.guide import AT, ENDPOINT
from triggerkit import Change, task
from triggerkit.settings import Settings


def execute(settings: Settings, query: str) -> list[Any]:
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def test_a_consumer_is_made_edited_paused_replayed_and_deleted(
    pushed: ApiSite, settings: Settings
) -> None:
    made = pushed.get(AT)
    assert (made["state"], made["managed_by"], made["endpoint"]) == (
        "active", "api", "local_endpoint",
    )  # fmt: skip
    assert made["definition"]["sort_by"] == "updated_at"
    assert len(made["cursors"]) > 1
    [backfill] = pushed.get("/backfills")["data"]
    assert (backfill["consumer"], backfill["table"]) == ("posts_push_consumer", "public.posts")
    [listed] = pushed.get("/consumers")["data"]
    assert listed == {**pushed.get(f"{AT}/health"), "lag_seconds": listed["lag_seconds"]}
    edited = pushed.done("PATCH", AT, {"batch_size": 100, "actions": ["insert", "read"]})
    assert edited["definition"] == {
        **made["definition"],
        "batch_size": 100,
        "actions": ["insert", "read"],
    }
    assert [w for w in edited["warnings"] if "CREATE INDEX" in w]
    assert pushed.done("POST", f"{AT}/pause")["state"] == "paused"
    assert pushed.done("POST", f"{AT}/resume")["state"] == "active"
    assert pushed.done("PATCH", AT, {"paused": True})["state"] == "paused"
    assert pushed.done("POST", f"{AT}/replay", {"from": "beginning"}) == {
        "first_position": 1, "entries": 0, "parked_removed": 0,
    }  # fmt: skip
    assert pushed.done("DELETE", AT) is None
    assert pushed.get("/consumers")["data"] == []
    changes = pushed.get("/audit")["data"]
    assert {change["actor"] for change in changes} == {"api"}
    assert [c["action"] for c in reversed(changes)] == [
        "endpoint.create", "create", "change", "pause", "resume", "change", "pause", "replay",
        "delete",
    ]  # fmt: skip
    assert execute(settings, "SELECT count(*) FROM pg_replication_slots") == [(1,)]


def test_events_are_pushed_to_an_endpoint_and_to_nobody_who_asks(
    settings: Settings, posts: None
) -> None:
    given = {"name": "hook", "tables": ["public.posts"], "body": "event"}
    with api(settings) as site:
        refused = site.call("POST", "/consumers", given)
        assert (refused.status, "hook body: 'event'" in str(refused.json)) == (422, True)
        site.done("POST", "/endpoints", ENDPOINT)
        made = site.done("POST", "/consumers", {**given, "endpoint": ENDPOINT["name"]})
        assert made["definition"]["body"] == "event"
        assert site.call("PATCH", "/consumers/hook", {"endpoint": None}).status == 422
        assert site.call("PATCH", "/consumers/hook", {"transform": "a:b"}).status == 422
        edited = site.done("PATCH", "/consumers/hook", {"body": "message"})
        assert edited["definition"]["body"] == "message"


def test_a_direct_consumer_has_nothing_of_a_push_and_a_task_that_is_there(
    settings: Settings, posts: None
) -> None:
    @task
    def copy_post(change: Change[dict[str, Any]]) -> None: ...

    @task
    def send_letter() -> None: ...

    base = {"name": "copies", "tables": ["public.posts"], "via": "direct"}
    with api(settings, [copy_post, send_letter]) as site:
        for given, message in (
            ("copy_pots", "no task is named 'copy_pots'; did you mean copy_post?"),
            ("send_letter", "its parameter must be a Change"),
        ):
            answer = site.call("POST", "/consumers", {**base, "task": given})
            assert (answer.status, message in str(answer.json)) == (422, True), answer.json
        made = site.done("POST", "/consumers", {**base, "task": "copy_post"})
        for shown in (made, site.get("/consumers/copies")):
            assert shown["definition"]["task"] == "copy_post"
            assert not {"endpoint", "timeout_s"} & shown["definition"].keys()
        again = {**shown["definition"], "name": "more"}
        assert site.done("POST", "/consumers", again)["definition"] == again
        assert site.call("PATCH", "/consumers/copies", {"task": "copy_pots"}).status == 422
    with api(settings) as site:
        # One whose task is gone can still be changed.
        assert site.done("PATCH", "/consumers/copies", {"batch_size": 7})["state"] == "active"


def test_a_consumer_that_does_not_fit_is_a_422_with_its_fields(
    site: ApiSite, posts: None, settings: Settings
) -> None:
    wrong: list[tuple[dict[str, Any], list[Any]]] = [
        ({"tables": []}, ["tables"]),
        ({"batch_size": 0}, ["batch_size"]),
        ({"kind": "columns"}, ["kind"]),
        ({"unknown": 1}, ["unknown"]),
        ({"name": "a b"}, ["name"]),
        ({"tables": ["public.postz"]}, ["tables", 0]),
        ({"sort_by": "updated"}, ["sort_by"]),
        ({"filters": [["title", "=="]]}, ["filters", 0]),
        ({"filters": [["titel", "==", "x"]]}, ["filters", 0, "column"]),
        ({"filter": "sys:exit"}, ["filter"]),
        ({"transform": "os:abort"}, ["transform"]),
        ({"endpoint": "nowhere"}, ["endpoint"]),
    ]
    base = {"name": "posts", "tables": ["public.posts"]}
    for given, place in wrong:
        answer = site.call("POST", "/consumers", {**base, **given})
        assert (answer.status, [p["loc"] for p in answer.json["detail"]]) == (422, [place]), given
    assert site.call("POST", "/consumers", {"tables": ["public.posts"]}).status == 422
    assert execute(settings, "SELECT name FROM triggerkit.consumers") == []
    site.done("POST", "/consumers", base)
    for given, place in wrong:
        if "name" not in given:
            answer = site.call("PATCH", "/consumers/posts", given)
            found = [p["loc"] for p in answer.json["detail"]]
            assert (answer.status, found) == (422, [place]), given
    assert site.call("PATCH", "/consumers/posts", {"name": "other"}).status == 422
    for start in ("yesterday", 99, "99", True):
        assert site.call("POST", "/consumers/posts/replay", {"from": start}).status == 422
    assert [c["action"] for c in site.get("/audit")["data"]] == ["create"]


def test_backfills_are_started_paused_resumed_and_canceled(pushed: ApiSite) -> None:
    assert pushed.call("POST", "/backfills", {"consumer": "posts_push_consumer"}).status == 409
    assert pushed.done("POST", "/backfills/1/pause")["state"] == "paused"
    assert pushed.call("POST", "/backfills/1/pause").status == 409
    assert pushed.done("POST", "/backfills/1/resume")["state"] == "active"
    assert pushed.done("POST", "/backfills/1/cancel")["state"] == "canceled"
    assert pushed.get("/backfills")["data"] == []
    wanted = {
        "consumer": "posts_push_consumer",
        "tables": ["posts"],
        "from": "2026-01-01",
        "until": "2027-01-01",
        "rows_per_s": 10,
    }
    started = pushed.done("POST", "/backfills", wanted)
    [backfill] = started["data"]
    assert (backfill["from"][:10], backfill["limit_rows_per_s"]) == ("2026-01-01", 10)
    assert "CREATE INDEX" in started["warnings"][0]
    assert pushed.get(f"/backfills/{backfill['id']}")["state"] == "active"
    assert len(pushed.get("/backfills?all=true")["data"]) == 2
    pushed.done("POST", f"/backfills/{backfill['id']}/cancel")
    wrongs: list[dict[str, Any]] = [
        {"tables": ["public.other"]}, {"sort_by": "x"}, {"from": "x"}, {"tables": []},
    ]  # fmt: skip
    for wrong in wrongs:
        assert pushed.call("POST", "/backfills", {**wanted, **wrong}).status == 422, wrong


def test_the_audit_is_listed_in_parts(site: ApiSite, posts: None) -> None:
    for name in ("a", "b", "c"):
        site.done("POST", "/consumers", {"name": name, "tables": ["public.posts"]})
    first = site.get("/audit?limit=2")
    rest = site.get(f"/audit?limit=2&cursor={first['next']}")
    found = [change["subject"] for change in first["data"] + rest["data"]]
    assert (found, rest["next"]) == (["consumer c", "consumer b", "consumer a"], None)


def test_a_gap_is_shown_with_its_place_and_accepted(pushed: ApiSite, settings: Settings) -> None:
    execute(
        settings,
        "INSERT INTO triggerkit.gaps (consumer_id, kind, schema_name, table_name, relation_oid, "
        "from_lsn, to_lsn, cause, ended_at) SELECT id, 'table', 'public', 'posts', 77, 5, 7, "
        "'it was away', now() FROM triggerkit.consumers RETURNING 1",
    )
    [gap] = pushed.get(AT)["gaps"]
    assert (gap["table"], gap["relation_oid"], gap["from_lsn"], gap["to_lsn"], gap["cause"]) == (
        "public.posts", 77, 5, 7, "it was away",
    )  # fmt: skip
    assert pushed.get(f"{AT}/health")["gaps"] == [gap]
    assert pushed.call("POST", f"{AT}/accept-gap", {"table": "other"}).status == 422
    assert pushed.done("POST", f"{AT}/accept-gap", {"table": "posts"})["gaps"] == []
    assert pushed.get("/audit")["data"][0]["action"] == "accept gap"
    assert pushed.call("POST", f"{AT}/accept-gap", {}).status == 422
    closed = execute(settings, "SELECT closed_by, closed_at IS NOT NULL FROM triggerkit.gaps")
    assert closed == [("api", True)]
