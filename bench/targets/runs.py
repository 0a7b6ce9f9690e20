"""T3: one run per trigger and per row of a task that does nothing, beside plain Dramatiq."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from bench.figures import Figure, Report, Scale, Target, middle
from bench.items import SCHEMA, insert
from bench.processes import Program, run_to_end, wait_until
from bench.project import ROOT, Connection, connect, one, servers, work_folder, write_project
from bench.rivals.plain_dramatiq import NOTES_VARIABLE, URL_VARIABLE, entries
from bench.targets.idle import measure_idle

#: Only for commands that run on this machine, as `serve` would ask of anybody.
SECRET = "a-secret-of-the-benchmarks-only"

#: Most seconds one measurement may take.
ROUND_S = 600.0

#: The size of both workers.
SIZE = ["--processes", "2", "--threads", "8"]

#: By Dramatiq's, for each way.
TARGETS = {
    "triggers queued": Target("≥", 4),
    "triggers running": Target("≥", 4),
    "rows queued": Target("≥", 3),
    "rows running": Target("≥", 2),
    "rows directly": Target("≥", 3),
}

#: By name, what measures the runs a second of so many runs, and how many.
Ways: TypeAlias = Mapping[str, tuple[Callable[[int], float], int]]

TASKS = """\
from typing import Any

from triggerkit import Change, changes, task


@task
def do_nothing(payload: dict[str, int]) -> None:
    pass


@task(on=changes("public.items"))
def look_at(change: Change[dict[str, Any]]) -> None:
    pass
"""

DIRECT_TASKS = TASKS.replace('changes("public.items")', 'changes("public.items", via="direct")')

_OPEN = """
SELECT EXISTS (SELECT FROM triggerkit.runs WHERE status = 'queued' AND NOT blocked)
    OR EXISTS (SELECT FROM triggerkit.runs WHERE status = 'executing')
"""

_LAST = "SELECT coalesce(max(seq), 0) FROM triggerkit.runs"

#: Runs completed after `seq`, and the seconds from the first claim to the last completion.
_DONE = """
SELECT count(*), extract(epoch FROM max(finished_at) - min(started_at))::float,
    extract(epoch FROM max(finished_at))::float
FROM triggerkit.runs WHERE seq > %s AND status = 'completed'
"""


def run(scale: Scale) -> Report:
    """Measure each way in turns, then many at once, then a worker that has nothing to do."""
    count, rounds = scale.pick(2000, 20_000), scale.pick(1, 3)
    # The slowest, whose rate does not depend on how many there are, but for the first.
    rows = scale.pick(2000, 5000)
    many = scale.pick(5000, 100_000)
    with work_folder() as folder, servers(folder / "state") as settings:
        bench = Runs.prepare(folder, settings)
        with connect(settings["DATABASE_URL"]) as bench.connection:
            ways: Ways = {
                "dramatiq queued": (bench.dramatiq_queued, count),
                "triggers queued": (bench.triggers_queued, count),
                "rows queued": (bench.rows_queued, count),
                "dramatiq sent": (bench.dramatiq_sent, count),
                "triggers running": (bench.triggers_running, count),
                "rows running": (bench.rows_running, rows),
                "rows directly": (bench.rows_directly, rows),
            }
            measured = _in_turns(ways, rounds)
            bench.triggers_queued(many)
            triggered, completed = bench.triggered[-1], bench.completed[-1]
            idle = measure_idle(bench.worker, settings, folder / "state", scale.pick(5, 15))
    raw = {
        "runs": {name: runs for name, (_, runs) in ways.items()},
        "runs_per_s": measured,
        "trigger_many": {"runs": many, "triggers_per_s": triggered, "completions_per_s": completed},
        "idle": idle.as_json(),
    }
    figures = [
        *_compared(measured),
        Figure(f"trigger_many of {many:,}: triggers", triggered, "runs/s"),
        Figure("  their completions", completed, "runs/s"),
        *idle.figures(),
    ]
    return Report(figures, raw)


def _in_turns(ways: Ways, rounds: int) -> dict[str, list[float]]:
    measured: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, (way, count) in ways.items():
            measured[name].append(way(count))
    return dict(measured)


def _compared(measured: dict[str, list[float]]) -> list[Figure]:
    def figure(name: str, what: str) -> Figure:
        return Figure(what, middle(measured[name]), "runs/s")

    def ratio(name: str, rival: str) -> Figure:
        pairs = zip(measured[name], measured[rival], strict=True)
        by = middle([our / its for our, its in pairs])
        return Figure("  by Dramatiq's", by, "x", TARGETS[name])

    return [
        figure("dramatiq queued", "Dramatiq, 2 x 8, queued before it starts"),
        figure("triggers queued", "one run per trigger, queued before"),
        ratio("triggers queued", "dramatiq queued"),
        figure("rows queued", "one run per row, queued before"),
        ratio("rows queued", "dramatiq queued"),
        figure("dramatiq sent", "Dramatiq, 2 x 8, sent while it works"),
        figure("triggers running", "one run per trigger, triggered meanwhile"),
        ratio("triggers running", "dramatiq sent"),
        figure("rows running", "one run per row, committed → completed"),
        ratio("rows running", "dramatiq sent"),
        figure("rows directly", 'the same with via="direct"'),
        ratio("rows directly", "dramatiq sent"),
    ]


@dataclass(slots=True)
class Runs:
    """A project with both tasks, and the two workers on the same servers. Rates are a second."""

    folder: Path
    settings: dict[str, str]
    connection: Connection = field(init=False)
    triggered: list[float] = field(default_factory=list)
    completed: list[float] = field(default_factory=list)

    @classmethod
    def prepare(cls, folder: Path, settings: dict[str, str]) -> Runs:
        """Make the project, its table and its consumer."""
        settings |= {
            "TRIGGERKIT_WEBHOOK_SECRET": SECRET,
            "TRIGGERKIT_PORT": "8397",
            "PYTHONPATH": str(ROOT),
        }
        with connect(settings["DATABASE_URL"]) as connection:
            connection.execute(SCHEMA)
        runs = cls(folder / "project", settings)
        runs._declare(TASKS)
        return runs

    def _declare(self, tasks: str) -> None:
        write_project(self.folder, tasks, SCHEMA)
        run_to_end(self.folder, ["triggerkit", "apply"], self.settings)

    def worker(self, *size: str) -> Program:
        """Our worker."""
        return Program(self.folder, ["triggerkit", "worker", *size], self.settings)

    def triggers_queued(self, count: int) -> float:
        """From the first claim to the last completion of runs that were queued before."""
        last = self._prepared()
        self.triggered.append(count / self._trigger(count))
        with self.worker(*SIZE):
            self.completed.append(count / self._done(last, count)[0])
        return self.completed[-1]

    def triggers_running(self, count: int) -> float:
        """The same while they are triggered."""
        last = self._prepared()
        with self.worker(*SIZE):
            self._trigger(count)
            return count / self._done(last, count)[0]

    def rows_queued(self, count: int) -> float:
        """As `triggers_queued`, of runs that rows made: each has its key and is checked."""
        last = self._prepared()
        with self._capture():
            insert(self.connection, count)
            wait_until(lambda: self._made(last) >= count, ROUND_S, "a run for each row", 0.25)
        with self.worker(*SIZE):
            return count / self._done(last, count)[0]

    def rows_running(self, count: int) -> float:
        """From the first commit to the last completion, every process at work."""
        last = self._prepared()
        with self._capture(), self.worker(*SIZE):
            first_commit = insert(self.connection, count)
            return count / (self._done(last, count)[1] - first_commit)

    def rows_directly(self, count: int) -> float:
        """The same without `serve`: the stream makes the runs itself."""
        self._declare(DIRECT_TASKS)
        try:
            return self.rows_running(count)
        finally:
            self._declare(TASKS)

    def dramatiq_queued(self, count: int) -> float:
        """From the first entry to the last of messages that were sent before."""
        notes = self._notes()
        self._send(count)
        with self._dramatiq(notes):
            return self._entered(notes, count)

    def dramatiq_sent(self, count: int) -> float:
        """The same while they are sent."""
        notes = self._notes()
        with self._dramatiq(notes):
            self._send(count)
            return self._entered(notes, count)

    @contextmanager
    def _capture(self) -> Iterator[None]:
        with ExitStack() as running:
            for command in ("serve", "stream"):
                program = Program(self.folder, ["triggerkit", command], self.settings)
                running.enter_context(program)
            yield

    def _prepared(self) -> int:
        self.connection.execute("CHECKPOINT")
        return int(one(self.connection, _LAST))

    def _trigger(self, count: int) -> float:
        return float(run_to_end(self.folder, ["bench.trigger", str(count)], self.settings))

    def _made(self, last: int) -> int:
        made = one(self.connection, "SELECT count(*) FROM triggerkit.runs WHERE seq > %s", last)
        return int(made)

    def _done(self, last: int, count: int) -> tuple[float, float]:
        """Seconds from the first claim to the last completion, and when that was."""
        # Counted only when there is nothing left to do: counting costs what is measured.
        wait_until(
            lambda: not one(self.connection, _OPEN) and self._made(last) >= count,
            ROUND_S,
            "all runs completed",
            0.25,
        )
        done, seconds, at = self.connection.execute(_DONE, [last]).fetchall()[0]
        assert done == count, f"{done} of {count} runs are completed"
        return float(seconds), float(at)

    def _notes(self) -> Path:
        notes = self.folder / "notes"
        shutil.rmtree(notes, ignore_errors=True)
        notes.mkdir()
        return notes

    def _send(self, count: int) -> None:
        variables = {URL_VARIABLE: self.settings["REDIS_URL"], "PYTHONPATH": str(ROOT)}
        run_to_end(self.folder, ["bench.rivals.plain_dramatiq", str(count)], variables)

    def _dramatiq(self, notes: Path) -> Program:
        variables = {
            URL_VARIABLE: self.settings["REDIS_URL"],
            NOTES_VARIABLE: str(notes),
            "PYTHONPATH": str(ROOT),
        }
        arguments = ["dramatiq", "bench.rivals.plain_dramatiq:set_up_counting", *SIZE]
        return Program(self.folder, arguments, variables)

    def _entered(self, notes: Path, count: int) -> float:
        wait_until(lambda: entries(notes)[0] >= count, ROUND_S, "all messages entered", 0.1)
        entered, first_ns, last_ns = entries(notes)
        return entered / ((last_ns - first_ns) / 1e9)
