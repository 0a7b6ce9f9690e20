"""Messages through the API: parked, pulled and traced."""

from __future__ import annotations

import psycopg

from tests.integration.web.api.described import ApiSite
from tests.integration.web.api.guide import AT, put_into_log
from triggerkit.settings import Settings


def test_parked_messages_are_listed_in_parts_shown_tried_again_and_discarded(
    pushed: ApiSite, settings: Settings
) -> None:
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO triggerkit.parked (consumer_id, partition, position, key, body, reason, "
            "state, attempts) SELECT c.id, 0, p, 'key ' || (p - p % 2), '{\"record\":{\"id\":1}}', "
            "'it answered 422', CASE p % 2 WHEN 0 THEN 'blocked' ELSE 'waiting' END, 1 - p % 2 "
            "FROM triggerkit.consumers c, generate_series(2, 7) p"
        )
    first = pushed.get("/messages?consumer=posts_push_consumer&limit=4")
    rest = pushed.get(f"/messages?consumer=posts_push_consumer&limit=4&cursor={first['next']}")
    assert [m["position"] for m in first["data"] + rest["data"]] == [2, 3, 4, 5, 6, 7]
    assert rest["next"] is None
    assert len(pushed.get("/messages?state=blocked")["data"]) == 3
    shown = pushed.get("/messages/posts_push_consumer/2")
    assert (shown["body"], shown["message"]["state"]) == ({"record": {"id": 1}}, "blocked")
    one = "/messages/posts_push_consumer"
    assert pushed.done("POST", f"{one}/2/retry") == {"messages": 1}
    assert pushed.get(f"{one}/2")["message"]["state"] == "failing"
    assert pushed.call("POST", f"{one}/3/retry").status == 409
    assert pushed.done("POST", f"{one}/4/discard") == {"messages": 1}
    assert pushed.get(f"{one}/5")["message"]["state"] == "failing", "it is the first of its key"
    assert pushed.call("GET", f"{one}/4").status == 404
    assert pushed.call("GET", f"{one}/{10**30}").status == 404
    every = {"consumer": "posts_push_consumer", "state": "blocked"}
    assert pushed.done("POST", "/messages/retry", every) == {"messages": 1}
    assert pushed.done("POST", "/messages/discard", {"consumer": every["consumer"]}) == {
        "messages": 5
    }
    for path in ("/messages?consumer=post", "/messages/post/1"):
        assert "known consumers: posts_push_consumer" in pushed.call("GET", path).json["error"]
    assert pushed.call("POST", "/messages/retry", {"consumer": "post"}).status == 404
    for query in ("cursor=x", "state=lost", "limit=1001"):
        assert pushed.call("GET", f"/messages?{query}").status == 422


def test_a_parked_message_that_no_parser_takes_is_shown_by_its_text(
    pushed: ApiSite, settings: Settings
) -> None:
    deep = "[" * 500 + "]" * 500
    body = rf'{{"record":{{"id":1,"a":"\ud800","b":1e400,"c":{deep}}},"action":"insert"}}'
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO triggerkit.parked (consumer_id, partition, position, key, body, reason) "
            "SELECT c.id, 0, 2, 'key', %s, 'it answered 422' FROM triggerkit.consumers c",
            [body],
        )
    shown = pushed.get("/messages/posts_push_consumer/2")["body"]
    assert shown["record"] == {"id": 1, "a": r'"\ud800"', "b": "1e400", "c": deep}


def test_a_pulled_consumers_messages_are_as_described(
    site: ApiSite, posts: None, settings: Settings
) -> None:
    site.done("POST", "/consumers", {"name": "pulled", "tables": ["public.posts"]})
    at = "/consumers/pulled"
    assert site.done("POST", f"{at}/receive", {}) == {"data": []}
    put_into_log(settings)
    [message] = site.done("POST", f"{at}/receive", {"batch_size": 5})["data"]
    assert (message["action"], message["record"]) == ("delete", {"id": 1})
    ids = {"ack_ids": [message["ack_id"]]}
    assert site.done("POST", f"{at}/extend", {**ids, "seconds": 30}) == {"success": True}
    assert site.done("POST", f"{at}/nack", {**ids, "delay": "1s"}) == {"success": True}
    assert site.done("POST", f"{at}/ack", ids)["stale"] == ids["ack_ids"]
    assert site.call("POST", "/consumers/pull/receive", {}).status == 404
    assert site.call("POST", f"{at}/receive", {"batch_size": 0}).status == 422
    assert site.call("POST", f"{at}/receive", b"{").status == 400
    site.done("POST", f"{at}/pause")
    assert site.call("POST", f"{at}/receive", {}).status == 409


def test_a_change_is_traced_by_its_position(pushed: ApiSite, settings: Settings) -> None:
    pushed.done("PATCH", AT, {"actions": ["insert"]})
    put_into_log(settings)
    found = pushed.get("/traces/1")
    assert (found["table"], found["action"], found["record"]) == (
        "public.posts",
        "delete",
        {"id": 1},
    )
    [way] = found["consumers"]
    assert (way["consumer"], way["state"]) == ("posts_push_consumer", "not wanted")
    assert pushed.get("/traces/1?consumer=posts_push_consumer") == found
    for path in ("2", "0", "x", "run_x", "9" * 30, "1?consumer=post", "1?database=other"):
        assert pushed.call("GET", f"/traces/{path}").status == 404, path
