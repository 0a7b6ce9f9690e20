"""How long a worker waits until it replaces a child that died."""

from __future__ import annotations

from itertools import accumulate

from triggerkit.supervisor.crew import FIRST_WAIT_S, LONGEST_WAIT_S, next_wait_s


def waits(*worked_s: float) -> list[float]:
    """The waits after children that worked so long, one after the other."""
    return list(accumulate(worked_s, next_wait_s, initial=FIRST_WAIT_S))[1:]


def test_children_that_die_at_once_are_waited_for_longer_and_longer() -> None:
    found = waits(*[0.0] * 10)
    assert found[:4] == [FIRST_WAIT_S * factor for factor in (2, 4, 8, 16)]
    assert found[-1] == LONGEST_WAIT_S


def test_children_that_worked_are_replaced_soon_however_many_die() -> None:
    assert waits(*[5.0] * 10) == [FIRST_WAIT_S] * 10


def test_a_child_that_worked_longer_than_it_was_waited_for_ends_the_long_waits() -> None:
    assert waits(0, 0, 0, 0, 2, 7) == [0.4, 0.8, 1.6, 3.2, 6.4, FIRST_WAIT_S]
