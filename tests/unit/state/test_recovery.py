"""What is lost is tried again at first soon, then ever slower, and told once."""

from __future__ import annotations

import logging

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from triggerkit.state.recovery import LONGEST_WAIT_S, Recovery, reason_of

LOGGER = logging.getLogger("triggerkit.test")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, set by the test."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def recovery() -> Recovery:
    return Recovery("the stream", (OSError,), LOGGER)


def test_the_first_wait_is_short_and_they_double_up_to_the_longest() -> None:
    tried = recovery()
    waits = [tried.failed("away") for _ in range(12)]
    assert waits[0] < 0.25
    for number, wait in enumerate(waits):
        expected = min(0.2 * 2**number, LONGEST_WAIT_S)
        assert 0.85 * expected <= wait <= 1.15 * expected


def test_the_waits_begin_anew_after_a_good_stretch_and_not_before(clock: list[float]) -> None:
    tried = recovery()
    for _ in range(10):
        tried.failed("away")
    tried.succeeded()
    clock[0] += 5
    assert tried.failed("away") > LONGEST_WAIT_S / 2, "it came and went at once"
    tried.succeeded()
    clock[0] += 100
    assert tried.failed("away") < 0.25


def test_a_loss_and_its_end_are_told_once_and_another_reason_too(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tried = recovery()
    tried.succeeded()
    for reason in ("no route", "no route", "wrong password", "wrong password"):
        tried.failed(reason)
    clock[0] += 7
    tried.succeeded()
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "the stream lost: no route; trying again"),
        ("WARNING", "the stream not back yet: wrong password; trying again"),
        ("INFO", "the stream restored after 7.0 s"),
    ]


def test_what_never_ran_is_not_told_as_lost(caplog: pytest.LogCaptureFixture) -> None:
    recovery().failed("no such slot")
    assert caplog.messages == ["the stream cannot be made: no such slot; trying again"]


def test_a_reason_is_one_line_and_a_missing_right_names_its_remedy() -> None:
    group = ExceptionGroup("", [ExceptionGroup("", [psycopg.OperationalError("gone\nfor good")])])
    assert reason_of(group) == "gone"
    assert "triggerkit check" in reason_of(InsufficientPrivilege("permission denied"))
    assert reason_of(OSError()) == "OSError"
