"""Databases, tasks and runs as the API shows them."""

from __future__ import annotations

from typing import Any

from tests.integration.run_state import new_run, run_state
from tests.integration.web.api.described import api
from triggerkit import Change, rows, task
from triggerkit.settings import Settings


def test_databases_tasks_and_runs_are_shown(settings: Settings, posts: None) -> None:
    @task(on=rows("public.posts"))
    def api_task(change: Change[dict[str, Any]]) -> None: ...

    with run_state(settings) as state, api(settings, tasks=[api_task]) as site:
        [run] = [handle.id for handle in state.accept(new_run())]
        assert [r["id"] for r in site.get("/runs?task=work&status=queued&limit=1")["data"]] == [run]
        assert site.get("/runs?status=failed")["data"] == []
        assert site.get(f"/runs/{run}")["payload"] == {"n": 1}
        [shown] = site.get("/tasks")["data"]
        assert (shown["name"], shown["route"]) == ("api_task", "/api/api-task")
        site.done("POST", "/consumers", {"name": "posts", "tables": ["public.posts"]})
        [database] = site.get("/databases")["data"]
        assert (database["consumers"], database["retained_from"]) == (["posts"], 1)
        at = f"/databases/{database['name']}"
        assert site.get(at) == database
        health = site.get(f"{at}/health")
        assert (health["slot_active"], health["log_max_bytes"]) == (False, 20 * 10**9)
        assert "slot" in str([problem["name"] for problem in health["problems"]])
        away = "postgresql://reader:canary@127.0.0.1:1/source"
    with api(settings, DATABASE_URL=away, TRIGGERKIT_STATE_URL=settings.state_dsn) as site:
        assert site.get(f"{at}/health")["slot_active"] is None
        assert site.call("GET", "/databases/other/health").status == 404
