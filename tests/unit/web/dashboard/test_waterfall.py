"""The waterfall's bars: on one scale, and never of a negative duration."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from triggerkit.consumers.trace.way import Bar
from triggerkit.web.dashboard.waterfall import LEAST, MOST_BARS, SCALE, draw

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_bars_are_laid_out_on_the_scale_of_the_whole() -> None:
    bars = [Bar("a", at(0), at(1)), Bar("b", at(1), at(4), kind="wait"), Bar("c", at(4), at(4))]
    found = draw(bars, at(9))
    assert [(one.left, one.width) for one in found.bars] == [
        (0, 250), (250, 750), (SCALE - LEAST, LEAST),
    ]  # fmt: skip
    assert found.whole_s == 4
    assert not found.clocks_differ


def test_what_has_not_ended_goes_on_until_now() -> None:
    found = draw([Bar("a", at(0), at(1)), Bar("b", at(1), None)], at(2))
    assert [(one.took_s, one.width) for one in found.bars] == [(1.0, 500), (None, 500)]


def test_clocks_that_differ_are_said_and_nothing_is_negative() -> None:
    bars = [
        Bar("committed", at(5), at(5), kind="event"),
        Bar("to the log", at(5), at(3)),
        Bar("captured", at(3), at(3), kind="event"),
        Bar("attempt 1", at(9), None),
    ]
    found = draw(bars, at(4))
    assert found.clocks_differ
    assert [one.backwards for one in found.bars] == [False, True, False, False]
    for one in found.bars:
        assert one.offset_s >= 0
        assert one.took_s is None or one.took_s >= 0
        assert 0 <= one.left <= SCALE - LEAST
        assert LEAST <= one.width <= SCALE - one.left


def test_events_all_at_once_have_a_place() -> None:
    found = draw([Bar("accepted", at(0), at(0), kind="event")], at(0))
    assert [(one.left, one.width, one.took_s) for one in found.bars] == [(0, LEAST, None)]


def test_of_thousands_of_bars_the_first_are_drawn() -> None:
    found = draw([Bar("a", at(n), at(n + 1)) for n in range(MOST_BARS + 7)], at(0))
    assert (len(found.bars), found.left_out) == (MOST_BARS, 7)
