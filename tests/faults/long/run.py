"""One long run: changes as fast as they flow, a fault every so many, what the checker counts."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

from tests.faults.long.troubles import Troubles
from tests.faults.machines.partitions import ATTEMPTS
from tests.faults.machines.plant import Plant, plant_of
from tests.faults.rig.checker import Violation, check
from tests.faults.rig.history import Bounds
from tests.faults.rig.scenario import APPLIED, IN_FLIGHT, OBSERVED
from tests.faults.rig.truth import Connection, Workload

#: So many changes may be on their way: then writers wait until what was marked has come through.
BACKLOG = 1000

#: Changes a second that the writers make at most, and the rows that they change.
MOST_PER_S, WRITERS, KEYS = 2000.0, 4, 20_000

#: Seconds after which the installation counts as one that does not recover.
GIVEN_UP_S = 180.0

#: Changes of the first part, without faults, by those of the whole run.
QUIET_SHARE = 0.05


class Paced(Workload):
    """A workload whose writers wait while too much is on its way."""

    allowed = BACKLOG

    def allow(self, changes: int) -> None:
        """Let the writers make `changes` in all."""
        with self._changed:
            self.allowed = changes
            self._changed.notify_all()

    def _transaction(self, connection: Connection, choose: random.Random) -> None:
        with self._changed:
            # One that is to stop looks for that now and then.
            if not self._changed.wait_for(lambda: self.changes < self.allowed, 0.2):
                return
        super()._transaction(connection, choose)


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of a run. `pushed_twice` and `executed_twice` count what came again after it had
    been taken once; the recoveries are seconds from the end of a fault until all flows."""

    seed: int
    events: int
    faults: int
    seconds: float
    lost: int
    out_of_order: int
    other_violations: int
    deliveries: int
    pushed_twice: int
    effects: int
    executed_twice: int
    recovery_p50_s: float
    recovery_p95_s: float
    recovery_max_s: float
    quiet_per_s: float
    faulted_per_s: float
    ended_by_themselves: int
    recoveries: list[tuple[str, float]]
    violations: list[str]

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def run(folder: Path, events: int, faults: int, seed: int) -> Figures:
    """Change rows `events` times among so many faults.

    Raises:
        CannotMakeMachines: this system cannot; it says what is missing.
    """
    with plant_of(folder) as plant:
        return _Run(plant, seed).run(events, faults)


class _Run:
    def __init__(self, plant: Plant, seed: int) -> None:
        self._plant = plant
        self._seed = seed
        self._troubles = Troubles(plant, seed)
        url = plant.scenario.url
        self._workload = Paced(url, seed, writers=WRITERS, per_second=MOST_PER_S, keys=KEYS)
        self._recoveries: list[tuple[str, float]] = []

    def run(self, events: int, faults: int) -> Figures:
        began = time.monotonic()
        quiet = max(BACKLOG, int(events * QUIET_SHARE))
        self._workload.start()
        try:
            self._until(quiet)
            quiet_s = time.monotonic() - began
            quiet_changes = self._workload.changes
            step = max(1, (events - quiet) // max(1, faults))
            for number, fault in enumerate(self._troubles.choose(faults)):
                self._until(quiet + step * number)
                at_s = time.monotonic() - began
                fault.make()
                took_s = self._flow()
                self._recoveries.append((fault.name, round(took_s, 2)))
                said = f"{number + 1:3} of {faults}, {at_s:6.0f} s, {self._workload.changes:8,}"
                print(f"{said}: {fault.name}; flows after {took_s:.1f} s", flush=True)
            self._until(events)
        finally:
            self._workload.stop()
        seconds = time.monotonic() - began
        faulted = (self._workload.changes - quiet_changes) / (seconds - quiet_s)
        return self._judge(seconds, quiet_changes / quiet_s, faulted)

    def _until(self, changes: int) -> None:
        while self._workload.changes < changes:
            self._flow()

    def _flow(self) -> float:
        before = self._workload.changes
        took_s = self._plant.until_it_flows(GIVEN_UP_S)
        self._workload.allow(before + BACKLOG)
        return took_s

    def _judge(self, seconds: float, quiet_per_s: float, faulted_per_s: float) -> Figures:
        scenario, faults = self._plant.scenario, len(self._recoveries)
        drained_s = scenario.drain(GIVEN_UP_S)
        bounds = Bounds(faults * ATTEMPTS * IN_FLIGHT, faults * IN_FLIGHT, GIVEN_UP_S)
        violations: list[Violation] = []
        deliveries = pushed_twice = 0
        # One after the other: a history of a million changes is large.
        for path in (OBSERVED, APPLIED):
            history = scenario.history(path, drained_s)
            violations += check(history, bounds)
            taken = Counter(d.id for d in history.delivered if d.accepted)
            deliveries += sum(taken.values())
            pushed_twice += sum(taken.values()) - len(taken)
        executed = Counter((e.key, e.place) for e in history.effects)
        rules = Counter(v.rule for v in violations)
        lost = rules["loss"] + rules["rows"]
        took = [seconds for _, seconds in self._recoveries]
        return Figures(
            seed=self._seed,
            events=self._workload.changes,
            faults=faults,
            seconds=round(seconds, 1),
            lost=lost,
            out_of_order=rules["order"],
            other_violations=len(violations) - lost - rules["order"],
            deliveries=deliveries,
            pushed_twice=pushed_twice,
            effects=executed.total(),
            executed_twice=executed.total() - len(executed),
            recovery_p50_s=percentile(took, 50),
            recovery_p95_s=percentile(took, 95),
            recovery_max_s=max(took, default=0.0),
            quiet_per_s=round(quiet_per_s, 1),
            faulted_per_s=round(faulted_per_s, 1),
            ended_by_themselves=len(self._plant.ended),
            recoveries=self._recoveries,
            violations=[str(v) for v in violations[:20]],
        )


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)] if ordered else 0.0
