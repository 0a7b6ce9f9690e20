"""Ready means: a change that is committed now would run."""

from __future__ import annotations

from typing import Any

from triggerkit.supervisor.readiness import missing

URL = "http://127.0.0.1:8000"


def lacking(*consumers: dict[str, Any], running: tuple[str, ...] = (), active: bool = True) -> str:
    """What is missing, where these processes run."""
    health = {"consumers": consumers, "databases": [{"slot_active": active}]}
    processes = [{"name": name, "pid": None, "state": "running"} for name in running]
    return "; ".join(map(str, missing(health, processes, URL, declares=True)))


def consumer(url: str | None = None, via: str = "webhook") -> dict[str, Any]:
    return {"endpoint_url": url, "via": via}


def test_a_route_of_ours_needs_all_three() -> None:
    ours = consumer(f"{URL}/api/work")
    assert lacking(ours, running=("stream", "serve", "worker")) == ""
    assert "triggerkit serve" in lacking(ours, running=("worker-1", "worker-2"))
    assert "triggerkit worker" in lacking(ours, running=("serve",))
    assert "triggerkit stream" in lacking(ours, running=("serve", "worker"), active=False)


def test_what_goes_to_others_or_is_pulled_needs_the_stream_alone() -> None:
    assert lacking(consumer("https://app.example.com/hook"), consumer()) == ""


def test_runs_that_are_made_directly_need_no_serve() -> None:
    direct = consumer(via="direct")
    assert lacking(direct, running=("worker",)) == ""
    assert "triggerkit worker" in lacking(direct)


def test_what_was_not_applied_yet_says_so() -> None:
    assert "triggerkit apply" in lacking(running=("worker",))
