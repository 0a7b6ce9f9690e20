"""Runs as values: ids that sort by time, statuses they start with, and waits within bounds."""

from __future__ import annotations

import time
from typing import Any

import pytest

from triggerkit import Handle, Retry
from triggerkit.errors import ConfigurationError
from triggerkit.runs.run import NewRun, RunError, is_run_id, new_run_id, storable


def test_ids_sort_by_the_time_they_were_made() -> None:
    made = []
    for _ in range(5):
        made.append(new_run_id())
        time.sleep(0.002)
    assert made == sorted(made)


def test_ids_differ_within_one_moment_and_are_known_as_ids() -> None:
    made = {new_run_id() for _ in range(10_000)}
    assert len(made) == 10_000
    assert all(is_run_id(run_id) for run_id in made)
    assert {len(run_id) for run_id in made} == {30}


@pytest.mark.parametrize(
    "text", ["", "run_", "run_" + "0" * 25, "run_" + "0" * 27, "run_" + "I" * 26, "x" * 30, "\x00"]
)
def test_other_texts_are_no_ids(text: str) -> None:
    assert not is_run_id(text)
    assert not is_run_id(new_run_id() + "\n")


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({}, "queued"),
        ({"delay_s": 1.0}, "delayed"),
        ({"delay_s": 1.0, "attempt": 1}, "retrying"),
        ({"attempt": 1}, "queued"),
        ({"failed": True, "delay_s": 1.0}, "failed"),
    ],
)
def test_the_status_a_run_starts_with(given: dict[str, Any], status: str) -> None:
    run = NewRun(task="t", queue="default", max_attempts=3, payload=b"{}", **given)
    assert run.status == status


def test_a_handle_says_that_the_run_existed_before_only_when_it_did() -> None:
    assert Handle("run_1", "t").as_json() == {"id": "run_1", "task": "t"}
    assert Handle("run_1", "t", duplicate=True).as_json() == {
        "id": "run_1",
        "task": "t",
        "duplicate": True,
    }


def test_waits_double_from_the_shortest_to_the_longest() -> None:
    retry = Retry(max_attempts=10, min_delay_s=1.0, factor=2.0, max_delay_s=60.0, jitter=False)
    waits = [retry.delay_s(attempt) for attempt in range(1, 9)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_jitter_waits_up_to_twice_as_long_and_never_longer_than_the_longest() -> None:
    retry = Retry(min_delay_s=1.0, max_delay_s=5.0)
    for attempt, bounds in ((1, (1.0, 2.0)), (2, (2.0, 4.0)), (3, (4.0, 5.0)), (50, (5.0, 5.0))):
        waits = [retry.delay_s(attempt) for _ in range(200)]
        assert bounds[0] <= min(waits) <= max(waits) <= bounds[1]
    assert len({retry.delay_s(1) for _ in range(10)}) > 1


def test_a_wait_of_nothing_stays_nothing() -> None:
    assert Retry(min_delay_s=0.0).delay_s(5) == 0.0


def test_the_ten_thousandth_attempt_has_a_wait_too() -> None:
    assert Retry(max_attempts=10**4, factor=10.0).delay_s(10_000) == 60.0


@pytest.mark.parametrize(
    "given",
    [{"max_attempts": 0}, {"factor": 0.5}, {"min_delay_s": -1.0}, {"max_delay_s": -1.0}],
)
def test_a_retry_that_cannot_be_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Retry(**given)


def test_texts_that_postgres_cannot_store_are_written_as_escapes() -> None:
    assert storable("a\x00b\ud800c") == "a\\x00b\\ud800c"
    assert storable("Grüße, 世界 🎉") == "Grüße, 世界 🎉"


def test_an_error_as_json_has_type_message_and_traceback() -> None:
    assert RunError("ValueError", "no", "…").as_json() == {
        "type": "ValueError",
        "message": "no",
        "traceback": "…",
    }
