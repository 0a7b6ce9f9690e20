"""Faults of every kind, chosen by a seed; each is over when its call returns."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from tests.acceptance.processes import family
from tests.faults.machines.clocks import faketime
from tests.faults.machines.partitions import DIRECTIONS, PAIRS
from tests.faults.machines.plant import PROCESSES, Plant
from tests.faults.rig.processes import kill
from tests.faults.rig.receiver import Behaviour

#: Seconds that a line is cut or a receiver misbehaves, at least and at most.
SHORTEST_S, LONGEST_S = 1.0, 12.0

#: Seconds by which clocks are set.
CLOCK_STEPS_S = (-600.0, -20.0, 0.0, 20.0, 600.0)

#: How receivers misbehave.
BEHAVIOURS = (
    Behaviour("status", status=500),
    Behaviour("status", status=429, retry_after="1"),
    Behaviour("status", status=503),
    Behaviour("reset"),
    Behaviour("hang"),
    Behaviour("drip"),
    Behaviour("lose"),
    Behaviour(failing_share=0.3),
)


class Fault(NamedTuple):
    """What is to happen, and its name."""

    name: str
    make: Callable[[], None]


class Troubles:
    """Makes faults to a plant."""

    def __init__(self, plant: Plant, seed: int) -> None:
        self._plant = plant
        self._choose = random.Random(seed)
        servers = plant.data.servers
        self._kinds: list[Callable[[], Fault]] = [
            self._kill,
            self._kill_child,
            self._cut,
            self._cut,
            self._misbehave,
            lambda: Fault("Postgres is restarted", servers.restart_postgres),
            lambda: Fault("Redis is killed", partial(servers.restart_redis, with_data=True)),
            lambda: Fault("Redis is emptied", partial(servers.restart_redis, with_data=False)),
            lambda: Fault("Redis is flushed", servers.flush_redis),
        ]
        if faketime() is not None:
            self._kinds.append(self._set_clock)

    def choose(self, count: int) -> list[Fault]:
        """So many faults, each kind as often as another, in any order."""
        kinds = [self._kinds[number % len(self._kinds)] for number in range(count)]
        self._choose.shuffle(kinds)
        return [kind() for kind in kinds]

    def _seconds(self) -> float:
        return self._choose.uniform(SHORTEST_S, LONGEST_S)

    def _kill(self) -> Fault:
        machine, command = self._choose.choice(PROCESSES)
        return Fault(f"{command} is killed", partial(self._plant.kill, machine, command))

    def _kill_child(self) -> Fault:
        machine = self._choose.choice([m for m, command in PROCESSES if command == "worker"])

        def make() -> None:
            parent = self._plant.processes[machine, "worker"].process.pid
            for pid in family(parent) - {parent}:
                kill(pid)

        return Fault("children of a worker are killed", make)

    def _cut(self) -> Fault:
        pair, direction = self._choose.choice(PAIRS), self._choose.choice(DIRECTIONS)
        seconds = self._seconds()

        def make() -> None:
            self._plant.network.cut(pair.ways(self._plant, direction))
            time.sleep(seconds)
            self._plant.network.mend()

        return Fault(f"line between {pair} is cut, {direction}, for {seconds:.1f} s", make)

    def _misbehave(self) -> Fault:
        behaviour, seconds = self._choose.choice(BEHAVIOURS), self._seconds()

        def make() -> None:
            self._plant.scenario.behave(behaviour)
            time.sleep(seconds)
            self._plant.scenario.behave(Behaviour())

        how = behaviour.mode if behaviour.mode != "status" else str(behaviour.status)
        return Fault(f"receiver: {how} for {seconds:.1f} s", make)

    def _set_clock(self) -> Fault:
        machine = self._choose.choice(["one", "two", "three"])
        seconds = self._choose.choice(CLOCK_STEPS_S)

        def make() -> None:
            self._plant.set_clock(machine, seconds)

        return Fault(f"clock of {machine} is {seconds:+.0f} s", make)
