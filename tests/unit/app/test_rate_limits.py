"""How long an API asks its callers to wait."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.rate_limits import asked_wait_s, parse_duration_s

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400),
        ("", None),
        ("5", None),
        ("soon", None),
        ("1s later", None),
    ],
)
def test_durations_are_parsed(text: str, seconds: float | None) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "2.5", "x-ratelimit-reset-tokens": "9s"}, 2.5),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "later"}, None),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        ({"x-ratelimit-reset-tokens": "garbage"}, None),
    ],
)
def test_the_exactest_header_counts(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait_s(headers, now=NOW) == seconds


def test_the_resets_of_the_limits_count_only_when_one_is_reached() -> None:
    reset = {"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}
    assert asked_wait_s(reset, limited=False) is None
    assert asked_wait_s({**reset, "retry-after": "2"}, limited=False) == 2
