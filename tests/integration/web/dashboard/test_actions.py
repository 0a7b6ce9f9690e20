"""What is done from pages: each does what its command does, and leaves a line in the audit."""

from __future__ import annotations

import html
import re

from tests.integration.run_state import RunState
from tests.integration.web.dashboard.followed import followed
from tests.integration.web.dashboard.test_pages import make_consumer, park, posts
from tests.integration.web.dashboard.visitor import Visitor


def audited(state: RunState) -> list[str]:
    return state.rows("SELECT actor || ': ' || action FROM triggerkit.audit ORDER BY id")


def test_a_queue_is_paused_and_resumed(state: RunState, visitor: Visitor) -> None:
    assert "paused since" in visitor.follow(visitor.act("/queues/default/pause")).text
    assert visitor.get("/queues").html.count('action="/dashboard/queues/default/resume"') == 1
    resumed = visitor.follow(visitor.act("/queues/default/resume")).text
    assert "paused since" not in resumed
    assert visitor.act("/queues/default/resume").status == 409
    assert visitor.act("/queues/nobody/resume").status == 404
    assert audited(state)[-2:] == ["dashboard: pause queue", "dashboard: resume queue"]


def test_a_task_is_started_with_a_payload_that_fits(state: RunState, visitor: Visitor) -> None:
    page = visitor.get("/tasks/work")
    form = {"csrf": page.csrf, "payload": '{"n": 3}'}
    started = visitor.follow(visitor.submit("/tasks/work/start", form))
    assert '"n": 3' in started.text
    assert '"n": 3' in visitor.get("/tasks/work").text
    for wrong in ("{", '{"n": "three"}', "[]"):
        refused = visitor.submit("/tasks/work/start", {**form, "payload": wrong})
        assert refused.status in (409, 422), refused.text
    assert visitor.submit("/tasks/other/start", form).status == 404
    assert state.statuses() == ["queued"]
    assert audited(state)[-1] == "dashboard: trigger"


def test_a_task_is_tested_and_what_is_wrong_is_said_beside_what_was_typed(
    state: RunState, visitor: Visitor
) -> None:
    page = visitor.get("/tasks/work/test")
    form = {"csrf": page.csrf, "payload": '{"n": "three"}'}
    refused = visitor.submit("/tasks/work/start", form)
    assert refused.status == 422
    assert "n: Input should be a valid integer" in refused.text
    assert '{"n": "three"}' in refused.text
    assert "/tasks/work/test" in visitor.get("/tasks/work").html
    visitor.get("/tasks/other/test", 404)


def test_a_task_is_tested_with_a_real_row(state: RunState) -> None:
    with followed(state) as visitor:
        state.connection.execute("INSERT INTO public.items VALUES (2, '<b>two</b>')")
        newest = visitor.get("/tasks/tell/test?table=public.items")
        assert "&lt;b&gt;two&lt;/b&gt;" in newest.html
        page = visitor.get("/tasks/tell/test?table=items&key=1")
        text = re.search(r"<textarea[^>]*>(.*?)</textarea>", page.html, re.S)
        assert text is not None
        payload = html.unescape(text[1])
        started = visitor.submit("/tasks/tell/start", {"csrf": page.csrf, "payload": payload})
        assert '"id": 1' in visitor.follow(started).text
        for query, said in (
            ("table=items&key=77", "has no row 77"),
            ("table=items&key=x", "does not fit the type"),
            ("table=nothing", "does not exist"),
            ("table=a.b.c.", "is not a table"),
        ):
            assert said in visitor.get(f"/tasks/tell/test?{query}", 422).text


def test_a_consumer_is_paused_resumed_and_replayed(state: RunState, visitor: Visitor) -> None:
    posts(state.settings)
    make_consumer(state.settings)
    at = f"/consumers/{consumer(state)}"
    assert "paused" in visitor.follow(visitor.act(f"{at}/pause")).text
    assert f'action="/dashboard{at}/resume"' in visitor.get(at).html
    assert "paused" not in visitor.follow(visitor.act(f"{at}/resume")).text
    csrf = visitor.get(at).csrf
    assert visitor.submit(f"{at}/replay", {"csrf": csrf, "from": ""}).status in (409, 422)
    assert visitor.submit(f"{at}/replay", {"csrf": csrf, "from": "beginning"}).status == 303
    assert visitor.act("/consumers/nobody/pause").status == 404
    assert audited(state)[-3:] == ["dashboard: pause", "dashboard: resume", "dashboard: replay"]


def test_a_backfill_is_started_held_and_ended(state: RunState, visitor: Visitor) -> None:
    posts(state.settings)
    make_consumer(state.settings)
    at = f"/consumers/{consumer(state)}"
    page = visitor.get(at)
    [backfill] = sorted(set(re.findall(r"/backfills/(\d+)/pause", page.html)))
    assert visitor.act(f"{at}/backfills").status == 409
    paused = visitor.follow(visitor.act(f"{at}/backfills/{backfill}/pause"))
    assert f"/backfills/{backfill}/resume" in paused.html
    visitor.follow(visitor.act(f"{at}/backfills/{backfill}/resume"))
    canceled = visitor.follow(visitor.act(f"{at}/backfills/{backfill}/cancel"))
    assert "canceled" in canceled.text
    again = visitor.follow(visitor.act(f"{at}/backfills"))
    assert len(set(re.findall(r"/backfills/(\d+)/pause", again.html))) == 1
    for wrong in ("999/pause", "x/pause", f"{backfill}/undo"):
        assert visitor.act(f"{at}/backfills/{wrong}").status == 404


def test_parked_messages_are_tried_again_and_dropped(state: RunState, visitor: Visitor) -> None:
    posts(state.settings)
    make_consumer(state.settings)
    park(state, "public.posts:[1]", "it said no")
    at = f"/messages/{consumer(state)}"
    visitor.follow(visitor.act(f"{at}/7/retry"))
    assert state.rows("SELECT state FROM triggerkit.parked") == ["failing"]
    visitor.follow(visitor.act(f"{at}/7/discard"))
    assert state.rows("SELECT state FROM triggerkit.parked") == []
    # Somebody else may have been there before.
    for verb in ("retry", "discard"):
        assert visitor.act(f"{at}/7/{verb}").status == 404
    assert visitor.act(f"/consumers/{consumer(state)}/messages/discard").status == 303
    assert audited(state)[-3:-1] == ["dashboard: retry messages", "dashboard: discard messages"]


def test_an_endpoint_is_tested_and_what_came_back_is_shown(
    state: RunState, visitor: Visitor
) -> None:
    posts(state.settings)
    make_consumer(state.settings)
    [endpoint] = state.rows("SELECT name FROM triggerkit.endpoints")
    page = visitor.act(f"/endpoints/{endpoint}/test")
    assert page.status == 200
    assert "dns" in page.text
    assert visitor.act("/endpoints/nobody/test").status == 404


def consumer(state: RunState) -> str:
    [name] = state.rows("SELECT name FROM triggerkit.consumers")
    return str(name)
