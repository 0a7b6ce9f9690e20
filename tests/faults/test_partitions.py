"""Lines between machines are cut, without a word and one-sidedly: nothing is lost or out of order.

All pairs, for half a minute each, are `make partitions`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.machines.clocks import say_without_faketime
from tests.faults.machines.network import CannotMakeMachines
from tests.faults.machines.partitions import Direction, Pair, run_pair


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("pair", "direction"),
    [
        (Pair("stream", "state", ("one",)), "both"),
        pytest.param(Pair("worker", "Postgres", ("three",)), "back", marks=pytest.mark.soak),
    ],
    ids=["stream and state", "answers of Postgres to a worker"],
)
def test_a_line_that_is_cut_for_half_a_minute(
    tmp_path: Path, pair: Pair, direction: Direction
) -> None:
    say_without_faketime()
    try:
        outcome = run_pair(tmp_path, pair, [direction])
    except CannotMakeMachines as error:
        pytest.skip(str(error))
    assert outcome.judged.messages > 1000
