"""The lists and what they lead to, on a row that was captured, delivered, and ran its task."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import replace

import orjson
import pytest

from tests.integration.run_state import RunState, new_run
from tests.integration.web.dashboard.followed import followed
from tests.integration.web.dashboard.test_pages import make_consumer, posts
from tests.integration.web.dashboard.visitor import Visitor
from triggerkit.web.dashboard.render import NAVIGATION

#: Fewest pages that lead on from the navigation, when there is something to show.
LEAST_PAGES = 25


@pytest.fixture
def after_a_change(state: RunState) -> Iterator[Visitor]:
    """Somebody who is logged in after a row was followed."""
    with followed(state) as visitor:
        yield visitor


def test_every_link_of_every_page_leads_to_a_page(after_a_change: Visitor) -> None:
    waiting = [f"/dashboard/{path}" for path, _ in NAVIGATION]
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen or len(seen) > 200:
            continue
        seen.add(path)
        page = after_a_change.request("GET", path)
        assert page.status == 200, (path, page.text)
        assert len(page.html) < 100_000, path
        assert not re.search(r"<style|\sstyle=|\son\w+=", page.html), path
        looks = re.sub(r'method="post" action="[^"]*"', "", page.html)
        links = [to.partition("#")[0] for to in replace(page, html=looks).links]
        # One more word of each filter is enough.
        waiting += [to for to in links if to and to.count("%3A") < 2 and "/logout" not in to
                    and not to.endswith((".css", ".svg"))]  # fmt: skip
    assert len(seen) > LEAST_PAGES


def test_the_trace_shows_the_newest_changes_without_their_rows(after_a_change: Visitor) -> None:
    page = after_a_change.get("/trace")
    positions = [int(n) for n in re.findall(r'href="/dashboard/trace/(\d+)"', page.html)]
    assert len(positions) == 2
    assert positions == sorted(positions, reverse=True)
    assert "tell past" in page.text
    assert "two" not in page.text.partition("Key")[2].partition("Consumers")[2]
    kept = after_a_change.get("/trace?filter=table:items+key:1+action:update")
    assert re.findall(r'href="/dashboard/trace/(\d+)"', kept.html) == [str(positions[0])]
    assert "No change in the log fits" in after_a_change.get("/trace?filter=table:other").text
    assert "needs table:" in after_a_change.get("/trace?filter=key:1", 422).text
    change = after_a_change.get(f"/trace/{positions[0]}")
    assert "update of public.items 1" in change.text
    assert re.search(r"text\s+one\s+two", change.text)
    assert "delivered" in change.text
    assert [to for to in change.links if re.match(r"/dashboard/runs/run_", to)]
    assert "no position" in after_a_change.get("/trace/99999", 404).text


def test_endpoints_show_their_answers_and_databases_their_checks(after_a_change: Visitor) -> None:
    endpoints = after_a_change.get("/endpoints").text
    assert re.search(r"tell .*/api/tell 200 200", endpoints)
    assert "200" in after_a_change.get("/endpoints/tell").text
    databases = after_a_change.get("/databases")
    assert "/dashboard/checks" in databases.links
    checks = after_a_change.get("/checks").text
    assert "postgres reachable" in checks
    assert "wal_level" in checks
    [link] = [to for to in databases.links if "/databases/" in to]
    assert "Publication triggerkit" in after_a_change.request("GET", link).text


def test_tasks_and_queues_say_where_they_are_and_what_waits(
    state: RunState, visitor: Visitor
) -> None:
    state.accept(new_run(), new_run(), new_run(task="elsewhere"))
    tasks = visitor.get("/tasks").text
    assert re.search(
        r"work nothing: it is triggered default 0 2 0 0 0 dashboard/conftest.py:", tasks
    )
    assert "elsewhere not in the code here" in tasks
    assert "2 queued" in visitor.get("/tasks/work").text
    assert "does not have the task in its code" in visitor.get("/tasks/elsewhere").text
    assert "known tasks: work" in visitor.get("/tasks/nothing", 404).text
    queues = visitor.get("/queues").text
    assert "default 0 3 0 0 0" in queues
    assert "none" in queues


def test_filters_are_qualifiers_in_one_box_and_stay_in_the_url(
    state: RunState, visitor: Visitor
) -> None:
    source = {"table": "public.posts", "key": 'public.posts:["17"]'}
    [ref, _] = state.accept(new_run(source=source), new_run())
    for text in (
        "table:posts+key:17",
        "status:queued+table:public.posts",
        f"{ref.id[6:20]}",
        "since:1h+table:posts",
        "table:posts+until:2999-01-01",
    ):
        page = visitor.get(f"/runs?filter={text}")
        assert re.findall(r'class="id" href="/dashboard/runs/(run_\w+)"', page.html) == [ref.id]
        assert "Runs 1 " in page.text
    for wrong, said in (
        ("key:17", "needs table:"),
        ("since:yesterday", "how long ago"),
        ("color:red", "color:red"),
        ("status:lost", "status"),
    ):
        page = visitor.get(f"/runs?filter={wrong}", 422)
        assert said in page.text
        assert f'value="{wrong}"' in page.html or wrong == "color:red"
    strange = visitor.get("/runs?filter=tag:'a+b'")
    assert "tag:&#39;a b&#39;" in strange.html


def test_parked_messages_are_listed_and_shown_with_their_body(
    state: RunState, visitor: Visitor
) -> None:
    posts(state.settings)
    make_consumer(state.settings)
    state.connection.execute(
        "INSERT INTO triggerkit.parked (consumer_id, partition, position, key, state, reason, "
        "attempts, body, due_at) SELECT c.id, 0, n, 'public.posts:[\"' || n || '\"]', 'blocked', "
        '\'answered 422\', 3, \'{"record":{"id":9007199254740993,"title":"hidden"}}\', now() '
        "FROM triggerkit.consumers c, generate_series(1, 60) n"
    )
    page = visitor.get("/messages")
    assert "public.posts 1 blocked posts_push_consumer" in page.text
    assert "hidden" not in page.text
    [more] = [to for to in page.links if "cursor=" in to]
    assert "public.posts 60" in visitor.request("GET", more).text
    assert "No parked message fits" in visitor.get("/messages?filter=state:dead").text
    assert "state: there is no such value" in visitor.get("/messages?filter=state:x", 422).text
    one = visitor.get("/messages/posts_push_consumer/7")
    assert "9007199254740993" in one.text
    assert "triggerkit messages retry posts_push_consumer 7" in one.text
    assert "is parked" in visitor.get("/messages/posts_push_consumer/77", 404).text


def test_the_audit_says_who_changed_what(state: RunState, visitor: Visitor) -> None:
    [ref] = state.accept(new_run())
    visitor.act(f"/runs/{ref.id}/cancel")
    page = visitor.get("/audit")
    assert f"dashboard cancel run run {ref.id}" in page.text
    assert "dashboard login dashboard" in page.text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/tasks", "work"),
        ("/queues", "triggerkit worker"),
        ("/errors", "None"),
        ("/schedules", "schedule="),
        ("/trace", "triggerkit apply"),
        ("/messages", "every message that was sent was taken"),
        ("/endpoints", "triggerkit endpoints create"),
        ("/databases", "triggerkit apply"),
        ("/connect", "DATABASE_URL"),
    ],
)
def test_an_empty_page_says_what_to_do_next(visitor: Visitor, path: str, said: str) -> None:
    assert said in visitor.get(path).text


def test_charts_show_how_runs_went_and_need_no_script(state: RunState, visitor: Visitor) -> None:
    assert "No run was accepted in the last 1h" in visitor.get("/").text
    state.connection.execute(
        "INSERT INTO triggerkit.run_rollups (step_s, task, at, accepted, completed, failed, open, "
        "latencies, waits) SELECT step, task, "
        "to_timestamp(floor(extract(epoch FROM now()) / step) * step) "
        "- make_interval(secs => step * 2), 120, 90, 30, 0, '{\"31\": 90}', "
        "'{\"10\": 120}' "
        "FROM unnest(ARRAY[60, 900, 3600]) step, unnest(ARRAY['', 'work']) task"
    )
    for path in ("/", "/?window=24h", "/tasks/work"):
        page = visitor.get(path)
        charts = [
            orjson.loads(html.unescape(text))
            for text in re.findall(r'data-chart="([^"]*)"', page.html)
        ]
        by_name = {line["name"]: line["values"] for chart in charts for line in chart["series"]}
        assert max(by_name["runs accepted"]) == 120 / (900 if "24h" in path else 60)
        assert max(by_name["failed"]) == 30
        assert 1.0 < max(v for v in by_name["p99"] if v) < 1.3
        assert page.html.count("<svg viewBox") >= 3
    tasks = visitor.get("/tasks")
    assert "120 runs in 24 h, 30 failed" in tasks.text
    # A queue that is fast has nothing waiting, and is seen by what went through it.
    state.accept(new_run())
    assert re.search(
        r"default 0 1 0 0 0 120 runs in 24 h, 30 failed 120 9\.\d ms", visitor.get("/queues").text
    )
    assert [to for to in tasks.links if "since%3A24h" in to or "since=24h" in to]
