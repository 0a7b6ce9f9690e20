"""Cron expressions in their time zone, over the days when its clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

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


BERLIN = "Europe/Berlin"


@pytest.mark.parametrize("expression", ["30 2 * * *", "0 30 2 * * *", "30 30 2 * * *"])
def test_a_fixed_time_ticks_once_on_each_day_of_a_change(expression: str) -> None:
    spring = ticks(Cron(expression, BERLIN), "2026-03-28T00:00", 3)
    assert spring == ["28 01:30", "29 01:00", "30 00:30"]
    assert ticks(Cron(expression, BERLIN), "2026-10-24T12:00", 2) == ["25 00:30", "26 01:30"]


@pytest.mark.parametrize("expression", ["*/30 2 * * *", "0 */30 2 * * *", "0,30 2 * * *"])
def test_several_times_of_a_fixed_hour_come_once_each_or_as_one(expression: str) -> None:
    spring = ticks(Cron(expression, BERLIN), "2026-03-29T00:00", 2)
    assert spring == ["29 01:00", "30 00:00"]
    autumn = ticks(Cron(expression, BERLIN), "2026-10-24T12:00", 3)
    assert autumn == ["25 00:00", "25 00:30", "26 01:00"]


def test_intervals_tick_with_the_time_that_passes() -> None:
    half_hours = Cron("*/30 * * * *", BERLIN)
    assert ticks(half_hours, "2026-03-29T00:30", 2) == ["29 01:00", "29 01:30"]
    assert ticks(half_hours, "2026-10-25T00:30", 3) == ["25 01:00", "25 01:30", "25 02:00"]


@pytest.mark.parametrize(
    ("zone", "days"),
    [
        (BERLIN, ["2026-03-28", "2026-10-24"]),
        ("Australia/Lord_Howe", ["2026-04-04", "2026-10-03"]),
        ("America/Havana", ["2026-03-07", "2026-10-31"]),
        ("Asia/Beirut", ["2026-03-28", "2026-10-24"]),
    ],
)
@pytest.mark.parametrize(
    "expression",
    ["30 2 * * *", "*/15 * * * *", "0 0 * * *", "0 */2 * * *", "15,45 0-3 * * *", "0 5 2 * * *"],
)
def test_ticks_are_after_the_moment_asked_for_and_rise(
    expression: str, zone: str, days: list[str]
) -> None:
    cron = Cron(expression, zone)
    for day in days:
        for step in range(144):
            moment = datetime.fromisoformat(f"{day}T00:10Z") + timedelta(minutes=20 * step)
            first, second = islice(cron.after(moment), 2)
            assert moment < first < second
            assert next(cron.after(first)) == second


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


#: Days on which clocks change: by half an hour, by two, at odd hours, with the zone itself.
ODD_DAYS = [
    ("Australia/Lord_Howe", "2026-10-03"),
    ("Australia/Lord_Howe", "2026-04-04"),
    ("Antarctica/Troll", "2026-03-28"),
    ("Antarctica/Troll", "2026-10-24"),
    ("Pacific/Chatham", "2026-09-26"),
    ("Pacific/Chatham", "2026-04-04"),
    ("America/Santiago", "2026-04-04"),
    ("America/Caracas", "2007-12-08"),
    ("Asia/Pyongyang", "2018-05-04"),
    ("Pacific/Apia", "2011-12-29"),
]


@pytest.mark.parametrize("minute", [0, 15, 45])
@pytest.mark.parametrize(("zone", "day"), ODD_DAYS)
def test_an_interval_ticks_whenever_the_clocks_show_its_minute(
    zone: str, day: str, minute: int
) -> None:
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    minutes = [start + timedelta(minutes=n) for n in range(1, 3 * 24 * 60)]
    shown = [moment for moment in minutes if moment.astimezone(ZoneInfo(zone)).minute == minute]
    cron = Cron(f"{minute} * * * *", timezone=zone)
    assert list(islice(cron.after(start), len(shown))) == shown
    # And so from each of them on.
    for before, after in pairwise(shown):
        assert next(cron.after(before)) == after
