"""Options of the SDK's triggers, and times as its callers write them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from triggerkit.compat.trigger_dev.durations import read_moment, read_span
from triggerkit.compat.trigger_dev.given import NOT_OFFERED, Options
from triggerkit.tasks.triggering import Debounce


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("1h30m", 5400), ("1hr", 3600), ("1w2d3h4m5s", 788_645), ("0s", 0)],
)
def test_spans_are_read(text: str, seconds: float) -> None:
    assert read_span(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "5 minutes", "1m1h", "-1s", "1.5h", "\u0661s"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write it as"):
        read_span(text)


def test_a_moment_may_be_a_date() -> None:
    assert read_moment("2h") == 7200
    assert read_moment("2026-01-31T12:00:00.000Z") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert read_moment("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    with pytest.raises(ValueError, match="or give a date"):
        read_moment("tomorrow")


def test_options_become_those_of_python() -> None:
    given = Options.model_validate(
        {
            "queue": {"name": "slow"},
            "concurrencyKey": "c",
            "idempotencyKey": "i",
            "delay": "1m",
            "ttl": 60,
            "tags": "one",
            "maxAttempts": 2,
            "metadata": {"a": 1},
            "priority": 5,
            "payloadType": "application/json",
            "machine": None,
            "test": False,
        }
    )
    assert given.as_asked() == {
        "queue": "slow",
        "concurrency_key": "c",
        "idempotency_key": "i",
        "idempotency_ttl": 30 * 86_400,
        "delay": 60,
        "ttl": 60,
        "tags": ["one"],
        "max_attempts": 2,
        "metadata": {"a": 1},
        "priority": 5,
    }
    assert debounced() == Debounce("k", 5, 3600, "first")
    assert debounced(mode="leading") == Debounce("k", 5, 3600, "first")
    assert debounced(mode="trailing", maxDelay="1m") == Debounce("k", 5, 60, "last")
    assert Options.model_validate({"ttl": 0, "concurrencyKey": 1.5}).as_asked() == {
        "concurrency_key": "1.5"
    }


def debounced(**more: str) -> Any:
    given = Options.model_validate({"debounce": {"key": "k", "delay": "5s", **more}})
    return given.as_asked()["debounce"]


@pytest.mark.parametrize("name", sorted(NOT_OFFERED))
def test_what_has_no_counterpart_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} is not offered; "):
        Options.model_validate({name: "x"})


@pytest.mark.parametrize(
    "given",
    [
        {"colour": 1},
        {"delay": "soon"},
        {"ttl": -1},
        {"queue": "slow"},
        {"idempotencyKey": ""},
        {"idempotencyKeyTTL": 5},
        {"debounce": {"key": "k"}},
        {"debounce": {"key": "k", "delay": "1s", "mode": "both"}},
        {"metadata": [1]},
        {"metadata": "text"},
        {"concurrencyKey": True},
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate(given)
