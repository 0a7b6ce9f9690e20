"""A small run of the long figure: it counts nothing that is lost or out of order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.long.__main__ import tell
from tests.faults.long.run import Figures, run
from tests.faults.machines.clocks import say_without_faketime
from tests.faults.machines.network import CannotMakeMachines


def made(folder: Path, events: int, faults: int) -> Figures:
    say_without_faketime()
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    try:
        figures = run(folder, events, faults, seed)
    except CannotMakeMachines as error:
        pytest.skip(str(error))
    tell(figures)
    assert not figures.violations
    assert not figures.ended_by_themselves
    return figures


@pytest.mark.timeout(400)
def test_a_few_faults(tmp_path: Path) -> None:
    figures = made(tmp_path, events=2500, faults=3)
    assert figures.events >= 2500
    assert len(figures.recoveries) == 3


@pytest.mark.soak
@pytest.mark.timeout(2400)
def test_twenty_thousand_changes_among_eight_faults(tmp_path: Path) -> None:
    assert made(tmp_path, events=20_000, faults=8).events >= 20_000
