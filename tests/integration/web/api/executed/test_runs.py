"""Runs, queues, schedules and workers through the API; answers are held against its description."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.integration.run_state import RunState, completed, new_run
from tests.integration.web.api.described import ApiSite, api
from tests.integration.worker_thread import working
from triggerkit import current_run, span, task
from triggerkit.runs.run import Outcome, RunError
from triggerkit.settings import Settings

TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/tasks.py", line {line}, in tell
    send()
  File "/usr/lib/python3.11/site-packages/smtp/client.py", line 9, in send
    raise ConnectionError
"""


@pytest.fixture
def site(settings: Settings) -> Iterator[ApiSite]:
    @task(name="work")
    def work(payload: dict[str, int]) -> None: ...

    with api(settings, [work]) as site:
        yield site


def schedule(state: RunState, **given: Any) -> None:
    values = {"paused_at": None, "catch_up": False, "next_at": "2026-01-01", **given}
    state.connection.execute(
        "INSERT INTO triggerkit.schedules (name, task, queue, max_attempts, cron, timezone, "
        "next_at, paused_at, catch_up) VALUES ('nightly', 'work', 'default', 3, '0 3 * * *', "
        "'Europe/Berlin', %(next_at)s, %(paused_at)s, %(catch_up)s)",
        values,
    )


def test_a_run_is_shown_with_what_it_said(state: RunState) -> None:
    @task
    def talkative(payload: dict[str, int]) -> int:
        with span("fetch", url="x"):
            current_run().log("hello", "INFO")
        return 3

    with working(state, talkative), api(state.settings, [talkative]) as site:
        [handle] = state.accept(talkative.new_run({"n": 1}))
        state.wait_for_status("completed", handle.id)
        state.wait_for(lambda: len(site.get(f"/runs/{handle.id}")["spans"]) == 2)
        found = site.get(f"/runs/{handle.id}")
        assert (found["output"], found["payload"], found["reason"]) == (3, {"n": 1}, None)
        [attempt] = found["attempts"]
        assert (attempt["attempt"], attempt["status"]) == (1, "completed")
        by_kind = {entry["kind"]: entry for entry in found["spans"]}
        assert (by_kind["span"]["name"], by_kind["span"]["attributes"]) == ("fetch", {"url": "x"})
        assert by_kind["log"]["name"] == "hello"
        assert by_kind["log"]["parent"] == by_kind["span"]["span_id"]
        [worker] = site.get("/workers")["data"]
        assert (worker["tasks"], worker["alive"]) == (["talkative"], True)
        [queue] = site.get("/queues")["data"]
        assert (queue["name"], queue["workers"]) == ("default", 1)


def test_a_worker_that_does_not_beat_is_not_alive(state: RunState, site: ApiSite) -> None:
    state.connection.execute(
        "INSERT INTO triggerkit.workers (id, hostname, pid, parent_pid, slots) "
        "VALUES ('worker-1', 'host', 1, 1, 4)"
    )
    [worker] = site.get("/workers?watch_s=2")["data"]
    assert worker["alive"] is False
    [worker] = site.get("/workers?watch_s=0")["data"]
    assert worker["alive"] is None
    assert site.call("GET", "/workers?watch_s=11").status == 422


def test_runs_are_listed_in_pages_by_filters(state: RunState, site: ApiSite) -> None:
    ids = sorted((h.id for h in state.accept(*(new_run() for _ in range(3)))), reverse=True)
    first = site.get("/runs?limit=2&status=queued,retrying&task=work")
    rest = site.get(f"/runs?limit=2&status=queued,retrying&task=work&cursor={first['next']}")
    assert [run["id"] for run in first["data"] + rest["data"]] == ids
    assert rest["next"] is None
    assert "no worker is running" in first["data"][0]["reason"]
    assert site.get("/runs?since=2999-01-01T00:00:00Z")["data"] == []
    for query in ("status=queued,lost", "status=", "since=yesterday", "since=2026-01-01T00:00:00"):
        assert site.call("GET", f"/runs?{query}").status == 422, query


def test_runs_are_canceled_and_replayed(state: RunState, site: ApiSite) -> None:
    first, second, third = (h.id for h in state.accept(*(new_run() for _ in range(3))))
    assert site.done("POST", f"/runs/{first}/cancel") == {"canceled": 1, "asked": 0, "next": None}
    assert site.call("POST", f"/runs/{first}/cancel").status == 409
    assert site.call("POST", "/runs/run_x/cancel").status == 404
    replayed = site.call("POST", f"/runs/{first}/replay", {})
    assert replayed.status == 201
    assert site.get(f"/runs/{replayed.json['id']}")["replay_of"] == first
    edited = site.done("POST", f"/runs/{first}/replay", {"payload": {"n": 2}})
    assert site.get(f"/runs/{edited['id']}")["payload"] == {"n": 2}
    refused = site.call("POST", f"/runs/{first}/replay", {"payload": {"n": "x"}})
    assert refused.status == 422
    assert refused.json["detail"][0]["loc"] == ["payload", "n"]
    both = {"payload": {}, "current": True}
    assert site.call("POST", f"/runs/{first}/replay", both).status == 422
    assert site.call("POST", f"/runs/{first}/replay", {"current": True}).status == 409
    assert site.call("POST", "/runs/run_x/replay", {}).status == 404
    done = site.done("POST", "/runs/cancel", {"text": second[4:]})
    assert done == {"canceled": 1, "asked": 0, "next": None}
    for path in ("/runs/cancel", "/runs/replay"):
        assert site.call("POST", path, {}).status == 422
    done = site.done("POST", "/runs/replay", {"status": "canceled", "limit": 1})
    assert (done["runs"], done["refused"]) == (1, 0)
    more = {"status": "canceled", "cursor": done["next"]}
    assert site.done("POST", "/runs/replay", more)["runs"] == 1
    assert site.done("POST", "/runs/cancel", {"all": True})["canceled"] == 5
    assert state.run(third)["status"] == "canceled"
    assert {change["actor"] for change in site.get("/audit")["data"]} == {"api"}


def test_a_run_that_waits_is_rescheduled(state: RunState, site: ApiSite) -> None:
    [run] = (h.id for h in state.accept(new_run(delay_s=3600)))
    at = f"/runs/{run}/reschedule"
    assert site.done("POST", at, {"delay": 0})["status"] == "delayed"
    found = site.done("POST", at, {"delay": "2999-01-01T00:00:00Z"})
    assert found["scheduled_at"].startswith("2998-12-31T23:59:5") or found[
        "scheduled_at"
    ].startswith("2999-01-01T00:00:0")
    far = {"delay": "9999-12-31T23:59:59-14:00"}
    for wrong in ({}, {"delay": -1}, {"delay": 1e12}, {"delay": "soon"}, far):
        assert site.call("POST", at, wrong).status == 422, wrong
    assert site.call("POST", "/runs/run_x/reschedule", {"delay": 1}).status == 404
    site.done("POST", f"/runs/{run}/cancel")
    assert site.call("POST", at, {"delay": 1}).status == 409


def test_queues_are_limited_paused_and_resumed(state: RunState, site: ApiSite) -> None:
    state.accept(new_run())
    found = site.done("PATCH", "/queues/default", {"concurrency": 5, "rate": "100/15s"})
    assert (found["concurrency"], found["rate_limit"], found["rate_period_s"]) == (5, 100, 15)
    found = site.done("PATCH", "/queues/default", {"rate": None})
    assert (found["concurrency"], found["rate_limit"]) == (5, None)
    found = site.done("PATCH", "/queues/default", {"concurrency": None})
    assert (found["concurrency"], found["queued"]) == (None, 1)
    assert site.call("PATCH", "/queues/default", {"rate": "often"}).status == 422
    assert site.done("POST", "/queues/default/pause")["paused_at"] is not None
    [run] = site.get("/runs")["data"]
    assert run["reason"].startswith("the queue default is paused since")
    assert site.done("POST", "/queues/default/resume")["paused_at"] is None
    assert site.call("POST", "/queues/default/resume").status == 409
    assert site.call("POST", "/queues/other/resume").status == 404
    assert site.call("GET", "/queues/other").status == 404
    assert site.get("/queues/default")["queued"] == 1
    actions = [change["action"] for change in reversed(site.get("/audit")["data"])]
    assert actions == ["limit queue"] * 3 + ["pause queue", "resume queue"]


def test_schedules_are_listed_paused_resumed_and_run(state: RunState, site: ApiSite) -> None:
    schedule(state)
    [found] = site.get("/schedules")["data"]
    assert (found["name"], found["cron"], found["paused_at"]) == ("nightly", "0 3 * * *", None)
    assert site.done("POST", "/schedules/nightly/pause")["paused_at"] is not None
    resumed = site.done("POST", "/schedules/nightly/resume")
    assert resumed["paused_at"] is None
    assert datetime.fromisoformat(resumed["next_at"]) > datetime.now(UTC)
    assert site.call("POST", "/schedules/nightly/resume").status == 409
    handle = site.done("POST", "/schedules/nightly/run")
    run = site.get(f"/runs/{handle['id']}")
    assert (run["task"], run["source"]["schedule"]) == ("work", "nightly")
    assert site.get("/runs?schedule=nightly")["data"][0]["id"] == handle["id"]
    for verb in ("pause", "resume", "run"):
        assert site.call("POST", f"/schedules/x/{verb}").status == 404
    actions = [change["action"] for change in reversed(site.get("/audit")["data"])]
    assert actions == ["pause schedule", "resume schedule", "run schedule"]


def test_a_schedule_that_catches_up_keeps_its_tick(state: RunState, site: ApiSite) -> None:
    schedule(state, catch_up=True, paused_at="2026-01-01")
    resumed = site.done("POST", "/schedules/nightly/resume")
    assert resumed["next_at"] == "2026-01-01T00:00:00Z"


def test_errors_are_grouped_by_type_and_the_projects_own_line(
    state: RunState, site: ApiSite
) -> None:
    handles = state.accept(*(new_run() for _ in range(4)))
    with state.claims() as claims:
        runs = claims.claim([handle.id for handle in handles])
        told = [("ConnectionError", 7), ("ConnectionError", 7), ("ConnectionError", 8)]
        failed = [
            Outcome(run, "failed", error=RunError(kind, "away", TRACEBACK.format(line=line)))
            for run, (kind, line) in zip(runs, told, strict=False)
        ]
        claims.complete([*failed, completed(runs[3])])
    found = site.get("/errors")["data"]
    assert [(g["type"], g["place"], g["count"], g["tasks"]) for g in found] == [
        ("ConnectionError", "/srv/shop/tasks.py:7 in tell", 2, ["work"]),
        ("ConnectionError", "/srv/shop/tasks.py:8 in tell", 1, ["work"]),
    ]
    assert found[0]["run_id"] in {runs[0].id, runs[1].id}
    assert site.get("/errors?task=other")["data"] == []
    assert site.get("/errors?since=2999-01-01T00:00:00Z")["data"] == []
