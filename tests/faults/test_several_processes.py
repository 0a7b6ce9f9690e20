"""Two `serve`, two `stream` and three `worker` on shared servers: each killed, and each rolled.

Nothing is lost, order is kept, no request is refused during a roll, and a roll repeats nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.faults.rig.balancer import Balancer, Visitor
from tests.faults.rig.checker import check, explain
from tests.faults.rig.fleet import Fleet
from tests.faults.rig.history import Bounds
from tests.faults.rig.receiver import Behaviour
from tests.faults.rig.scenario import APPLIED, IN_FLIGHT, OBSERVED, Scenario

KEY = "a management key for the fault tests"

#: Seconds between two faults, so that work goes on in between.
PAUSE_S = 0.5


@contextmanager
def fleet_of(scenario: Scenario) -> Iterator[tuple[Fleet, Visitor]]:
    """All processes, started in any order and all at once, behind a load balancer."""
    with ExitStack() as stack:
        balancer = stack.enter_context(Balancer())
        scenario.behave(Behaviour(), balancer.port)
        settings = {
            **scenario.environment,
            "TRIGGERKIT_SECRET_KEY": KEY,
            "TRIGGERKIT_GRACE": "20s",
            "TRIGGERKIT_DRAIN": "1s",
            "TRIGGERKIT_POOL_SIZE": "4",
        }
        fleet = Fleet(scenario.folder, settings, balancer)
        stack.callback(fleet.close)
        for place in random.sample(fleet.places, len(fleet.places)):
            fleet.start(place)
        for place in fleet.places:
            fleet.until_ready(place)
        visitor = Visitor(balancer.port, "/api/v1/tasks", {"authorization": f"Bearer {KEY}"})
        yield fleet, stack.enter_context(visitor)


def judge(scenario: Scenario, fleet: Fleet, faults: int, drain_s: float) -> None:
    drained_s = scenario.drain(drain_s)
    at_most = faults * IN_FLIGHT
    bounds = Bounds(repeats=at_most, effect_repeats=at_most, drain_s=drain_s)
    for path in (OBSERVED, APPLIED):
        violations = check(scenario.history(path, drained_s), bounds)
        assert not violations, f"{path}: {explain(violations)}\n{fleet.said()}"


def run(
    scenario: Scenario, changes: int, per_second: float, *, kills: bool, drain_s: float
) -> None:
    """Kill each once, unless told otherwise, and roll each once, while rows change."""
    scenario.prepare(rows_before=200)
    with (
        fleet_of(scenario) as (fleet, visitor),
        scenario.changing(random.randrange(2**32), per_second=per_second, keys=2000) as workload,
    ):
        workload.until(changes // 10, 60)
        places = random.sample(fleet.places, len(fleet.places))
        for place in places if kills else []:
            fleet.kill(place)
            fleet.until_ready(place)
            time.sleep(PAUSE_S)
        rolled_at = time.monotonic()
        for place in places:
            fleet.roll(place)
            time.sleep(PAUSE_S)
        workload.until(changes, changes / per_second * 4 + 60)
        workload.stop()
        print(f"{workload.changes} changes, {visitor.asked} requests of a visitor")
        judge(scenario, fleet, len(places) if kills else 0, drain_s)
        assert not visitor.since(rolled_at), visitor.since(rolled_at)[:5]
        assert visitor.asked > 100


@pytest.mark.timeout(400)
def test_rolls_lose_nothing_repeat_nothing_and_refuse_nobody(scenario: Scenario) -> None:
    run(scenario, changes=2000, per_second=100, kills=False, drain_s=60)


@pytest.mark.timeout(400)
def test_kills_and_rolls_lose_nothing(scenario: Scenario) -> None:
    run(scenario, changes=3000, per_second=100, kills=True, drain_s=60)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_twenty_thousand_changes_at_500_a_second(scenario: Scenario) -> None:
    run(scenario, changes=20_000, per_second=500, kills=True, drain_s=180)
