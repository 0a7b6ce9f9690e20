"""Of two instances of a group, which are processes, one is killed: the other goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests import ROOT
from tests.conformance.events.world import EventsWorld

SESSION_S = 3.0

#: Beyond the session: a machine that is busy with other tests.
SLACK_S = 5.0


class Instance:
    """A process that consumes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.seen: list[int] = []

    def read(self) -> list[int]:
        """Return what its next answer has."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "it ended"
        found = [int(number) for number in line.split()]
        self.seen += found
        return found

    def kill(self) -> None:
        """End it at once; what it printed until then it had."""
        self._process.kill()
        assert self._process.stdout
        rest = self._process.stdout.read()
        # A line that was cut off is none that it had.
        for line in rest.splitlines(keepends=True):
            self.seen += [int(number) for number in line.split()] if line.endswith("\n") else []


@contextmanager
def consuming(world: EventsWorld, name: str) -> Iterator[Instance]:
    """An instance, which is gone afterwards."""
    session = str(int(SESSION_S * 1000))
    command = [sys.executable, "-m", "tests.conformance.events.consuming", world.url, name, session]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield Instance(process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def test_the_other_goes_on_within_the_session_and_nothing_is_lost(world: EventsWorld) -> None:
    with consuming(world, "one") as one, consuming(world, "two") as two:
        row = 0
        while not (one.seen and two.seen):
            world.write(range(row + 1, row + 41))
            row += 40
            one.read()
            two.read()
            assert row < 4000, "only one of them gets anything"
        # It is amid its partitions, and has more to come.
        world.write(range(row + 1, row + 201))
        one.kill()
        killed_at = time.monotonic()
        everything = set(range(1, row + 201))
        while everything - set(one.seen) - set(two.seen):
            assert time.monotonic() - killed_at < SESSION_S + SLACK_S
            two.read()
    # Of what the killed one was handed last, nobody knows whether it was done.
    assert len(one.seen) + len(two.seen) < 2 * (row + 200)
