"""Lines between the parts that are cut for a while, one after the other, and what came of it."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tests.faults.machines.network import Way, between
from tests.faults.machines.plant import Judged, Plant, plant_of

#: What is dropped: what the first sends, what the second sends, or both.
Direction: TypeAlias = Literal["both", "there", "back"]
DIRECTIONS: tuple[Direction, ...] = ("both", "there", "back")

#: How many seconds a line is cut.
CUT_S = 30.0

#: How many seconds after the line is mended all has to flow again.
RECOVERED_S = 60.0

#: Attempts of one push while it is cut: those whose answers are dropped are each taken.
ATTEMPTS = 6

#: Changes a second meanwhile.
CHANGES_PER_S = 40.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two parts: the first on these machines, the second at these addresses."""

    one: str
    other: str
    machines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.one} and {self.other}"

    def ways(self, plant: Plant, direction: Direction) -> list[Way]:
        """What is cut of it."""
        data = plant.data
        addresses: Mapping[str, Sequence[str]] = {
            "source": [data.source],
            "state": [data.state],
            "Postgres": data.databases,
            "Redis": [data.transport],
            "serve": [plant.machines["two"].address],
        }
        ones = [plant.machines[name].address for name in self.machines]
        there, back = direction in ("both", "there"), direction in ("both", "back")
        return between(ones, addresses[self.other], there=there, back=back)


#: The `stream` of the first machine is the one that works, while its state can be reached.
PAIRS = (
    Pair("stream", "source", ("one",)),
    Pair("stream", "state", ("one",)),
    Pair("stream", "serve", ("one",)),
    Pair("both streams", "source", ("one", "three")),
    Pair("worker", "Postgres", ("three",)),
    Pair("worker", "Redis", ("three",)),
    Pair("serve and worker", "Postgres", ("two",)),
    Pair("serve and worker", "Redis", ("two",)),
    Pair("all", "Redis", ("one", "two", "three")),
    Pair("all", "Postgres", ("one", "two", "three")),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a pair: the seconds until all flowed again, by direction, and the counts."""

    pair: str
    recovered_s: Mapping[Direction, float]
    judged: Judged


def run_pair(
    folder: Path,
    pair: Pair,
    directions: Sequence[Direction] = DIRECTIONS,
    cut_s: float = CUT_S,
    seed: int | None = None,
) -> Outcome:
    """Cut the pair in each direction while rows change; fail if the checker finds anything.

    Raises:
        CannotMakeMachines: this system cannot; it says what is missing.
    """
    seed = random.randrange(2**32) if seed is None else seed
    recovered: dict[Direction, float] = {}
    with (
        plant_of(folder) as plant,
        plant.scenario.changing(seed, per_second=CHANGES_PER_S, keys=1000) as workload,
    ):
        for direction in directions:
            plant.network.cut(pair.ways(plant, direction))
            time.sleep(cut_s)
            plant.network.mend()
            recovered[direction] = plant.until_it_flows(RECOVERED_S)
            print(f"{pair}, {direction}: flows again after {recovered[direction]:.1f} s")
        workload.stop()
        return Outcome(str(pair), recovered, plant.judge(len(directions) * ATTEMPTS, RECOVERED_S))
