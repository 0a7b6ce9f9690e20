"""The bars of a run: a wait is named by what it was for, as far as that is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from triggerkit.consumers.trace.way import RunWay, steps_of_run

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def attempt(number: int, started: float, finished: float, status: str) -> dict[str, Any]:
    times = {"started_at": at(started), "finished_at": at(finished)}
    return {"attempt": number, "status": status, "error": None, **times}


def test_a_wait_before_an_earlier_retry_is_not_told_as_the_queues_alone() -> None:
    attempts = [
        attempt(1, 1, 2, "failed"),
        attempt(2, 5, 6, "failed"),
        attempt(3, 9, 10, "completed"),
    ]
    way = RunWay(at(0), at(8), at(10), "completed", "default", attempts, ())
    found = [(bar.what, bar.start, bar.end) for bar in steps_of_run(way) if bar.kind == "wait"]
    assert found == [
        ("queued", at(0), at(1)),
        ("waits for its retry, queued", at(2), at(5)),
        ("waits for its retry", at(6), at(8)),
        ("queued", at(8), at(9)),
    ]
