"""Random processes are killed while rows change: all arrives, in order, once but for what flew."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest

from tests.acceptance.processes import family
from tests.faults.rig.killable import KillableServers
from tests.faults.rig.processes import kill
from tests.faults.rig.project import Via
from tests.faults.rig.scenario import Scenario

#: Seconds between two kills.
KILL_EVERY_S = 1.0


class Killer:
    """Makes one random fault after the other, by a seed."""

    def __init__(self, scenario: Scenario, servers: KillableServers, seed: int) -> None:
        print(f"kill seed {seed}")
        self._choose = random.Random(seed)
        self._scenario = scenario
        self.faults: list[str] = []
        self._kinds: dict[str, Callable[[], None]] = {
            "stream": lambda: self._kill("stream"),
            "serve": lambda: self._kill("serve"),
            "worker": lambda: self._kill("worker"),
            "worker child": self._kill_child,
            "postgres": servers.restart_postgres,
            "redis": lambda: servers.restart_redis(with_data=True),
            "redis emptied": lambda: servers.restart_redis(with_data=False),
            "redis flushed": servers.flush_redis,
        }

    def run(self, seconds: float) -> None:
        """Make a fault each second."""
        until = time.monotonic() + seconds
        while (began := time.monotonic()) < until:
            kind = self._choose.choice(list(self._kinds))
            print(f"{seconds - until + began:5.1f} s: {kind}")
            self._kinds[kind]()
            self.faults.append(kind)
            time.sleep(max(0.0, began + KILL_EVERY_S - time.monotonic()))

    def _kill(self, name: str) -> None:
        pid = self._scenario.dev.pids().get(name)
        if pid is not None:
            kill(pid)

    def _kill_child(self) -> None:
        worker = self._scenario.dev.pids().get("worker")
        if worker is not None:
            for pid in family(worker) - {worker}:
                kill(pid)


WAYS: tuple[Via, ...] = get_args(Via)


@pytest.fixture
def killable(tmp_path: Path) -> Iterator[KillableServers]:
    """Servers of the test's own."""
    killable = KillableServers(tmp_path / "servers")
    yield killable
    killable.stop()


def run(
    folder: Path, servers: KillableServers, seed: int, seconds: float, changes: int, via: Via
) -> None:
    """Change rows for `seconds`, at the rate that makes `changes`, among kills; then judge."""
    scenario = Scenario(folder, servers.postgres.url, servers.redis.url, via)
    try:
        scenario.prepare(rows_before=1000)
        with scenario.changing(seed, per_second=1.5 * changes / seconds, keys=1000) as workload:
            scenario.start()
            killer = Killer(scenario, servers, seed)
            killer.run(seconds)
            workload.until(changes, 60)
        scenario.judge(faults=len(killer.faults), drain_s=60)
    finally:
        scenario.close()


@pytest.mark.parametrize("via", WAYS)
def test_random_kills(via: Via, tmp_path: Path, killable: KillableServers) -> None:
    run(tmp_path, killable, random.randrange(2**32), seconds=15, changes=1200, via=via)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(10))
def test_random_kills_for_a_minute(number: int, tmp_path: Path, killable: KillableServers) -> None:
    via = WAYS[number % len(WAYS)]
    run(tmp_path, killable, random.randrange(2**32), seconds=60, changes=5000, via=via)
