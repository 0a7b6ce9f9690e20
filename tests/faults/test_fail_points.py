"""A process is killed at each named place on a row's way: nothing is lost or out of order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.acceptance.project import eventually
from tests.faults.rig.scenario import Scenario
from triggerkit.failpoints import POINTS, VARIABLE

#: Where nothing is pushed, nobody comes.
OF_PUSHES = {"post-before", "post-after"}

#: On the way into Kafka; tests/faults/test_kafka_kills.py kills there.
OF_EVENTS = {"produced-before-cursor"}

#: On the way through a tunnel; tests/faults/test_tunnel_kills.py kills there.
OF_TUNNELS = {"tunnel-asked", "tunnel-taken", "tunnel-answered"}

OTHERS = OF_EVENTS | OF_TUNNELS

CASES = [(point, "webhook") for point in POINTS if point not in OTHERS]
CASES += [(point, "direct") for point in POINTS if point not in OTHERS | OF_PUSHES]


@pytest.mark.parametrize(("point", "scenario"), CASES, indirect=["scenario"])
def test_a_kill_at(point: str, scenario: Scenario, tmp_path: Path) -> None:
    fired = tmp_path / "fired"
    seed = random.randrange(2**32)
    scenario.prepare(rows_before=300)
    with scenario.changing(seed, per_second=150) as workload:
        workload.until(20, 10)
        scenario.start(**{VARIABLE: f"{point}={fired}"})
        eventually(fired.exists, 10, f"a kill at {point}")
        workload.until(300, 20)
    scenario.judge(faults=1)
    assert len(scenario.dev.deaths()) == 1
