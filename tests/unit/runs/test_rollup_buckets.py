"""Durations by buckets: what is read from them is right to a quarter, however many are added up."""

from __future__ import annotations

from collections import Counter

import pytest

from triggerkit.runs.keeper.rollups import RATIO, Step, bucket_of, percentile_s


@pytest.mark.parametrize("seconds", [0.001, 0.0123, 0.5, 1.0, 59.9, 3600.0, 86_400.0])
def test_a_duration_is_read_back_to_a_quarter(seconds: float) -> None:
    read = percentile_s({bucket_of(seconds): 1}, 0.5)
    assert read is not None
    assert seconds <= read * 1.000001
    assert read < seconds * RATIO * 1.000001


def test_clocks_that_differ_make_no_negative_duration() -> None:
    assert bucket_of(-3.0) == bucket_of(0.0) == 0


def test_percentiles_are_of_all_that_was_counted() -> None:
    counted = Counter({bucket_of(0.01): 98, bucket_of(9.0): 2})
    assert percentile_s({}, 0.5) is None
    assert (percentile_s(counted, 0.5) or 0) < 0.0126
    assert (percentile_s(counted, 0.99) or 0) >= 9.0


def test_steps_add_up() -> None:
    total = Step()
    for step in (Step(3, 2, 1, 0, Counter({1: 2})), Step(1, 0, 0, 1, Counter({1: 1, 2: 1}))):
        total.add(step)
    assert total == Step(4, 2, 1, 1, Counter({1: 3, 2: 1}))
