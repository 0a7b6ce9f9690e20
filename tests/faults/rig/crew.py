"""Workers that are killed while they execute, and what their tasks noted of every attempt."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.project import clean_environment

#: Each attempt notes when it began and ended, on the machine's monotonic clock and in one write, so
#: that notes are whole and do not depend on the servers that fail.
TASKS = """
import asyncio, os, random, time
import psycopg
from triggerkit import Retry, current_run, task

NOTES = os.open("notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
RETRY = Retry(max_attempts=60, min_delay_s=0.2, max_delay_s=2.0)

def note(event, number):
    run = current_run()
    text = f"{event} {run.id} {number} {run.attempt} {os.getpid()} {time.monotonic_ns()}\\n"
    os.write(NOTES, text.encode())

def effect(number):
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, connect_timeout=2) as c:
        c.execute("INSERT INTO effects VALUES (%s) ON CONFLICT DO NOTHING", [number])

def fail_a_third(number):
    if random.random() < 1 / 3:
        raise ValueError("a third of the attempts fail")

@task(retry=RETRY)
def in_thread(payload: dict) -> int:
    number = payload["number"]
    note("begin", number)
    try:
        time.sleep(0.04)
        fail_a_third(number)
        effect(number)
        return number
    finally:
        note("end", number)

@task(retry=RETRY)
async def on_loop(payload: dict) -> int:
    number = payload["number"]
    note("begin", number)
    try:
        await asyncio.sleep(0.04)
        fail_a_third(number)
        await asyncio.to_thread(effect, number)
        return number
    finally:
        note("end", number)
"""


class Note(NamedTuple):
    """One line: `event` is begin or end; `at_s` is monotonic."""

    event: str
    run_id: str
    number: int
    attempt: int
    pid: int
    at_s: float


class Death(NamedTuple):
    """A process that was killed, and when (monotonic seconds)."""

    pid: int
    at_s: float


@dataclass
class Crew:
    """`triggerkit worker` several times, each started again when it ends."""

    folder: Path
    environment: dict[str, str]
    count: int = 2
    tasks: str = TASKS
    deaths: list[Death] = field(default_factory=list)
    _parents: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Start all of them."""
        (self.folder / "tasks.py").write_text(self.tasks)
        for place in range(self.count):
            self._threads.append(threading.Thread(target=self._keep, args=[place]))
            self._threads[-1].start()

    def kill_one(self, rng: random.Random) -> None:
        """SIGKILL of a parent, with which its children end, or of one child. Where the tasks note
        what they begin, some that work die, and others are left that do: else it would be the start
        of processes that is waited for, which takes long on a busy machine. There may be none."""
        crews = [[one.pid, *_children(one.pid)] for one in list(self._parents.values())]
        begun = self._begun()
        working = {pid for _, *crew in crews for pid in crew if begun is None or pid in begun}
        kills = [[pid] for pid in sorted(working)] if rng.random() < 0.7 else crews
        if begun is not None:
            kills = [pids for pids in kills if working & {*pids} and working - {*pids}]
        if kills:
            self._kill(*rng.choice(kills))

    def attempts(self) -> int:
        """How many attempts have begun, by the notes of the tasks."""
        return (self._begun() or Counter()).total()

    def stop(self) -> None:
        """End all by SIGTERM, and wait."""
        self._stop.set()
        for parent in list(self._parents.values()):
            parent.terminate()
        for thread in self._threads:
            thread.join(60)

    def notes(self) -> list[Note]:
        """What all attempts noted, in order of time."""
        lines = (self.folder / "notes").read_text().splitlines()
        return sorted(map(_note, lines), key=lambda note: note.at_s)

    def _begun(self) -> Counter[int] | None:
        """How many attempts each process has begun; None where the tasks do not note that."""
        if "NOTES" not in self.tasks:
            return None
        with suppress(FileNotFoundError):
            whole = (self.folder / "notes").read_text().rpartition("\n")[0]
            notes = map(_note, whole.splitlines())
            return Counter(note.pid for note in notes if note.event == "begin")
        return Counter()

    def _kill(self, *pids: int) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.deaths.append(Death(pid, time.monotonic()))

    def _keep(self, place: int) -> None:
        with (self.folder / f"worker-{place}.log").open("ab") as log:
            while not self._stop.is_set():
                self._parents[place] = parent = subprocess.Popen(
                    [sys.executable, "-m", "triggerkit", "worker", "--processes", "2"],
                    cwd=self.folder,
                    env={**clean_environment(), **self.environment},
                    stdout=log,
                    stderr=log,
                )
                parent.wait()


def _children(pid: int) -> list[int]:
    """The processes that any thread of `pid` has started."""
    found: list[int] = []
    for of_thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, of_thread.read_text().split())
    return found


def _note(line: str) -> Note:
    event, run_id, number, attempt, pid, at_ns = line.split()
    return Note(event, run_id, int(number), int(attempt), int(pid), int(at_ns) / 1e9)


def overlaps(notes: list[Note], deaths: list[Death]) -> Iterator[str]:
    """Attempts of one run that executed at the same time. What a killed process began lasted until
    its death."""
    died = {death.pid: death.at_s for death in deaths}
    ends = {(n.run_id, n.attempt, n.pid): n.at_s for n in notes if n.event == "end"}
    began: defaultdict[str, list[Note]] = defaultdict(list)
    for note in notes:
        if note.event == "begin":
            began[note.run_id].append(note)
    for run_id, begins in began.items():
        for one, next_one in pairwise(begins):
            end = ends.get((run_id, one.attempt, one.pid), died.get(one.pid))
            if end is None:
                yield f"attempt {one.attempt} of {run_id} has no end, and {one.pid} was not killed"
            elif next_one.at_s < end:
                yield f"attempts {one.attempt} and {next_one.attempt} of {run_id} overlap"


class Recovery(NamedTuple):
    """A run that was cut by the death of its process, until its next attempt."""

    run_id: str
    attempt: int
    died_at_s: float
    took_s: float


def recoveries(notes: list[Note], deaths: list[Death]) -> list[Recovery]:
    """How long each run that a killed process had begun took to begin again."""
    died = {death.pid: death.at_s for death in deaths}
    ended = {(n.run_id, n.attempt, n.pid) for n in notes if n.event == "end"}
    following: dict[str, list[float]] = defaultdict(list)
    for note in notes:
        if note.event == "begin":
            following[note.run_id].append(note.at_s)
    found = []
    for note in notes:
        was_cut = (note.run_id, note.attempt, note.pid) not in ended and note.pid in died
        if note.event == "begin" and was_cut:
            later = [at for at in following[note.run_id] if at > died[note.pid]]
            if later:
                at_s = died[note.pid]
                found.append(Recovery(note.run_id, note.attempt, at_s, later[0] - at_s))
    return found
