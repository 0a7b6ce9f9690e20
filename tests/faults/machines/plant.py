"""An installation on three machines and a fourth with its data, whose lines can be cut."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.command_process import CommandProcess
from tests.faults.machines.clocks import clock_of
from tests.faults.machines.data import DataMachine
from tests.faults.machines.network import Machine, Network
from tests.faults.rig.checker import check, explain
from tests.faults.rig.history import Bounds, Delivery, History
from tests.faults.rig.receiver import Behaviour, ReceiverProcess
from tests.faults.rig.scenario import APPLIED, IN_FLIGHT, OBSERVED, Scenario

#: What runs where; the second `stream` stands by.
PROCESSES = (
    ("one", "stream"),
    ("two", "serve"),
    ("two", "worker"),
    ("three", "worker"),
    ("three", "stream"),
)

#: How many addresses each machine has; those of the data are told by `DataMachine`.
ADDRESSES = {"one": 1, "two": 1, "three": 1, "data": 3}

#: Seconds by which the clocks of the machines are apart.
CLOCKS_S = {"one": 0, "two": 90, "three": -90}

#: Seconds that a packet is under way, and the share of those that are lost.
DELAY_S, LOSS = 0.002, 0.001

#: Rows whose changes show that all partitions flow, and the first of their keys.
MARKERS, FIRST_MARKER = 16, 1_000_000

_MARK = """
INSERT INTO items SELECT k::bigint, nextval('truth.versions') FROM unnest(%s::text[]) k
"""

#: Whether all that was marked was executed, and pushed to every consumer; what a backfill read for
#: one of them is for that one alone.
_FLOWS = """
SELECT (SELECT count(*) FROM effects.items WHERE id = ANY (%(ids)s)) = %(count)s
    AND NOT EXISTS (SELECT FROM triggerkit.events e JOIN triggerkit.cursors c
        ON c.partition = e.partition AND c.position < e.position
        AND (e.consumer_id IS NULL OR e.consumer_id = c.consumer_id)
        WHERE e.position >= %(start)s AND e.key = ANY (%(keys)s))
"""

#: Seconds between two looks.
_LOOK_S = 0.1


class _Receiver(ReceiverProcess):
    """A receiver on a machine."""

    def __init__(self, file: Path, machine: Machine) -> None:
        self._machine = machine
        with machine.entered():
            super().__init__(file, machine.address)

    def behave(self, behaviour: Behaviour) -> None:
        """See `ReceiverProcess.behave`."""
        with self._machine.entered():
            super().behave(behaviour)


@dataclass(frozen=True, slots=True)
class Judged:
    """What the checker counted of a run without violations."""

    messages: int
    twice: int


class Plant:
    """Its processes and its data; `scenario` changes rows and judges."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.network = network
        self.machines = network.machines
        self.data = DataMachine(folder / "servers", self.machines["data"], network.subnet)
        servers = self.data.servers
        receiver = _Receiver(folder / "received.jsonl", self.machines["two"])
        self.scenario = Scenario(folder, servers.postgres.url, servers.redis.url, receiver=receiver)
        tasks = self.scenario.folder / "tasks.py"
        tasks.write_text(tasks.read_text().replace('"DATABASE_URL"', '"EFFECTS_URL"'))
        self._settings = {
            **self.scenario.environment,
            **self.data.settings(),
            "TRIGGERKIT_ALLOW_NETWORKS": network.subnet,
            "TRIGGERKIT_PORT": str(self.scenario.port),
        }
        self.processes: dict[tuple[str, str], CommandProcess] = {}
        #: The names of those that ended by themselves.
        self.ended: list[str] = []
        self._markers = 0
        for machine, seconds in CLOCKS_S.items():
            self.set_clock(machine, seconds)

    def start(self) -> None:
        """Start all processes, the `stream` that stands by once the other one works."""
        for machine, command in PROCESSES[:-1]:
            self.start_one(machine, command)
        self.until_it_flows(60)
        # One that cannot reach Postgres when it starts ends: what is cut is cut later.
        self.start_one(*PROCESSES[-1])
        self.processes[PROCESSES[-1]].until_said("standing by")

    def start_one(self, machine: str, command: str) -> None:
        """Start a process on its machine, with the machine's clock."""
        with self.machines[machine].entered():
            self.processes[machine, command] = CommandProcess(
                self.scenario.folder,
                f"{machine}-{command}",
                ["triggerkit", command],
                {**self._settings, **clock_of(self._clock(machine))},
            )

    def close(self) -> None:
        """End all."""
        for process in self.processes.values():
            process.kill()
        self.scenario.close()
        self.data.close()

    def until_it_flows(self, deadline_s: float) -> float:
        """Change a row in each partition, and wait until all came through; the seconds it took.

        What has ended meanwhile is started again, as a supervisor does.
        """
        began = time.monotonic()
        ids = [str(FIRST_MARKER + self._markers + number) for number in range(MARKERS)]
        self._markers += MARKERS
        with self.scenario.connect() as connection:
            [start] = connection.execute(
                "SELECT max(next_position) FROM triggerkit.databases"
            ).fetchone() or [0]
            connection.execute(_MARK, [ids])
            keys = [f'["{one}"]' for one in ids]
            wanted = {"start": start, "keys": keys, "ids": ids, "count": MARKERS}
            while connection.execute(_FLOWS, wanted).fetchone() != (True,):
                took_s = time.monotonic() - began
                assert took_s < deadline_s, f"nothing flows for {took_s:.0f} s: {self.explain()}"
                self.tend()
                time.sleep(_LOOK_S)
        return time.monotonic() - began

    def tend(self) -> None:
        """Start again what has ended, and note what ended by itself."""
        for place, process in list(self.processes.items()):
            if process.process.poll() is not None:
                self.ended.append(process.name)
                self.start_one(*place)

    def kill(self, machine: str, command: str) -> None:
        """SIGKILL of a process, and another one started at once."""
        self.processes[machine, command].kill()
        self.start_one(machine, command)

    def set_clock(self, machine: str, seconds: float) -> None:
        """Set the clock of a machine so far from the true one; its processes see it in a second."""
        self._clock(machine).write_text(f"{seconds:+.0f}s")

    def _clock(self, machine: str) -> Path:
        return self.scenario.folder / f"clock-{machine}"

    def judge(self, faults: int, drain_s: float) -> Judged:
        """Drain, and fail if the checker finds anything, or if a process has ended by itself."""
        drained_s = self.scenario.drain(drain_s)
        if drained_s is None:
            print("not drained:", *self.scenario.open(), sep="\n  ")
        at_most = faults * IN_FLIGHT
        bounds = Bounds(repeats=at_most, effect_repeats=at_most, drain_s=drain_s)
        histories = [self.scenario.history(path, drained_s) for path in (OBSERVED, APPLIED)]
        for history in histories:
            violations = check(history, bounds)
            assert not violations, f"{explain(violations)}\n{self.explain()}"
        self.tend()
        assert not self.ended, f"ended by themselves: {self.ended}\n{self.explain()}"
        return Judged(sum(len(h.delivered) for h in histories), sum(map(_twice, histories)))

    def explain(self) -> str:
        """The end of what each process said."""
        said = (f"--- {p.name}\n{p.said()[-1500:]}" for p in self.processes.values())
        return "\n".join([*said, *self.scenario.open()])


@contextmanager
def plant_of(folder: Path, rows_before: int = 200) -> Iterator[Plant]:
    """An installation that flows.

    Raises:
        CannotMakeMachines: this system cannot; it says what is missing.
    """
    with ExitStack() as stack:
        network = Network(DELAY_S, LOSS)
        network.make(ADDRESSES)
        stack.callback(network.remove)
        plant = Plant(folder, network)
        stack.callback(plant.close)
        plant.scenario.prepare(rows_before, sample_s=0.2)
        plant.start()
        yield plant


def _twice(history: History) -> int:
    """How many messages were taken more than once, counted each time but the first."""
    taken = Counter(d.id for d in _accepted(history))
    return sum(taken.values()) - len(taken)


def _accepted(history: History) -> list[Delivery]:
    return [d for d in history.delivered if d.accepted]
