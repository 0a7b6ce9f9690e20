"""Cron expressions in their time zone, over the days when its clocks change."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import pytest

from triggerkit import Cron
from triggerkit.errors import ConfigurationError
from triggerkit.runs.schedules import NAMED


def ticks(cron: Cron, after: str, count: int) -> list[str]:
    found = islice(cron.after(datetime.fromisoformat(after).replace(tzinfo=UTC)), count)
    return [f"{tick:%d %H:%M}" for tick in found]


def test_ticks_are_those_of_the_zones_own_clock() -> None:
    assert ticks(Cron("30 6 * * *"), "2026-01-01T00:00", 2) == ["01 06:30", "02 06:30"]
    berlin = Cron("30 6 * * *", timezone="Europe/Berlin")
    assert ticks(berlin, "2026-03-28T00:00", 2) == ["28 05:30", "29 04:30"]
    assert ticks(berlin, "2026-10-24T00:00", 2) == ["24 04:30", "25 05:30"]


def test_an_hour_that_is_left_out_makes_its_tick_when_it_would_have_been() -> None:
    # At 2:00 on 29 March clocks in Berlin go to 3:00, which is 1:00 UTC.
    daily = Cron("30 2 * * *", timezone="Europe/Berlin")
    assert ticks(daily, "2026-03-28T00:00", 3) == ["28 01:30", "29 01:00", "30 00:30"]
    hourly = Cron("0 * * * *", timezone="Europe/Berlin")
    assert ticks(hourly, "2026-03-29T00:00", 2) == ["29 01:00", "29 02:00"]


def test_an_hour_that_comes_twice_makes_a_daily_tick_once_and_an_hourly_one_twice() -> None:
    # At 3:00 on 25 October clocks in Berlin go back to 2:00, which is 1:00 UTC.
    daily = Cron("30 2 * * *", timezone="Europe/Berlin")
    assert ticks(daily, "2026-10-24T12:00", 2) == ["25 00:30", "26 01:30"]
    hourly = Cron("0 * * * *", timezone="Europe/Berlin")
    assert ticks(hourly, "2026-10-24T23:30", 3) == ["25 00:00", "25 01:00", "25 02:00"]


def test_names_of_expressions_and_a_field_for_seconds_are_understood() -> None:
    assert ticks(Cron("@daily"), "2026-01-01T00:00", 2) == ["02 00:00", "03 00:00"]
    assert ticks(Cron("@hourly"), "2026-01-01T00:00", 2) == ["01 01:00", "01 02:00"]
    weekly = Cron("@weekly", timezone="Europe/Berlin")
    assert ticks(weekly, "2026-01-01T00:00", 1) == ["03 23:00"]
    for name, expression in NAMED.items():
        assert ticks(Cron(name), "2026-01-01T00:00", 3) == ticks(
            Cron(expression), "2026-01-01T00:00", 3
        )
    seconds = islice(Cron("*/20 * * * * *").after(datetime(2026, 1, 1, tzinfo=UTC)), 3)
    assert [tick.second for tick in seconds] == [20, 40, 0]


def test_the_tick_of_now_is_not_after_now() -> None:
    assert ticks(Cron("0 0 * * *"), "2026-01-01T00:00", 1) == ["02 00:00"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"expression": "every day"}, "is not a cron expression"),
        ({"expression": "@reboot"}, "is not a cron expression"),
        ({"expression": "@every 5m"}, "is not a cron expression"),
        ({"expression": "61 * * * *"}, "is not a cron expression"),
        ({"expression": "0 0 30 2 *"}, "is not a cron expression"),
        ({"expression": "0 0 * * *", "timezone": "Mars/Olympus"}, "no time zone"),
        ({"expression": "0 0 * * *", "timezone": "../etc/passwd"}, "no time zone"),
    ],
)
def test_what_is_not_understood_is_refused_with_an_example(
    given: dict[str, str], problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        Cron(**given)  # type: ignore[arg-type]
