"""T4: milliseconds from the commit to the task's first line, on an idle system."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.figures import Figure, Latencies, Report, Scale, Target
from bench.processes import Program, wait_until
from bench.project import ROOT, connect, dev, dev_database, one, servers, work_folder, write_project
from bench.rivals.plain_dramatiq import NOTES_VARIABLE, URL_VARIABLE, make_actor

#: Pauses between two changes, in seconds: how a system that is used a little sees them, and how
#: one that rests between two does.
STEADY_S = (0.02, 0.08)
RESTING_S = (0.5, 1.5)

#: Changes before the first that counts.
WARM_UP = 20

#: Seconds the last change may take.
DRAIN_S = 30.0

SCHEMA = "CREATE TABLE IF NOT EXISTS pings (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)"

TASKS = """\
import time
from pathlib import Path

from pydantic import BaseModel

from triggerkit import Change, changes, task

NOTES = Path(__file__).parent / "notes.txt"


class Ping(BaseModel):
    id: int


@task(on=changes("public.pings"))
def enter(change: Change[Ping]) -> None:
    entered_ns = time.time_ns()
    with NOTES.open("a") as file:
        file.write(f"{change.record.id} {entered_ns}\\n")
"""

#: The same task, whose runs the stream makes itself.
DIRECT_TASKS = TASKS.replace('changes("public.pings")', 'changes("public.pings", via="direct")')

#: Makes something happen and gives its number in the notes.
Cause = Callable[[], int]

#: How many changes are made with which pauses between them.
Paces = list[tuple[int, tuple[float, float]]]

#: The latencies of each pace, measured in a folder.
Measure = Callable[[Path, Paces], list[list[float]]]


def run(scale: Scale) -> Report:
    """Measure the product and plain Dramatiq in turns, at both paces."""
    steady, resting, rounds = scale.pick(30, 100), scale.pick(8, 50), scale.pick(1, 2)
    contestants: dict[str, Measure] = {
        "product": partial(_product, TASKS),
        "direct": partial(_product, DIRECT_TASKS),
        "dramatiq": _rival,
    }
    samples: dict[str, dict[str, list[float]]] = {
        name: {"steady": [], "resting": []} for name in contestants
    }
    with work_folder() as folder:
        for _ in range(rounds):
            for name, measure in contestants.items():
                paces = measure(folder / name, [(steady, STEADY_S), (resting, RESTING_S)])
                samples[name]["steady"] += paces[0]
                samples[name]["resting"] += paces[1]
    return _report(
        {
            name: {pace: Latencies(tuple(found)) for pace, found in paces.items()}
            for name, paces in samples.items()
        }
    )


def _report(measured: dict[str, dict[str, Latencies]]) -> Report:
    figures = []
    ours, theirs = measured["product"], measured["dramatiq"]
    for pace, when in (("resting", "0.5 to 1.5 s"), ("steady", "20 to 80 ms")):
        our, their = ours[pace], theirs[pace]
        is_target = pace == "resting"
        figures += [
            Figure(f"commit → task entered, every {when}: p50", our.at(50), "ms"),
            Figure("  p95", our.at(95), "ms"),
            Figure("  p99", our.at(99), "ms"),
            Figure("  max", our.at(100), "ms"),
            *_direct(measured["direct"][pace], is_target=is_target),
            Figure("  Dramatiq send → entered: p50", their.at(50), "ms"),
            Figure("  Dramatiq p95", their.at(95), "ms"),
            Figure(
                "  our p50 / its p50",
                our.at(50) / their.at(50),
                "x",
                Target("≤", 1 / 40) if is_target else None,
            ),
            Figure(
                "  our p99 / its p95",
                our.at(99) / their.at(95),
                "x",
                Target("≤", 1 / 20) if is_target else None,
            ),
        ]
    raw: dict[str, object] = {
        f"{name}_ms": {pace: sample.as_json() for pace, sample in paces.items()}
        for name, paces in measured.items()
    }
    return Report(figures, {**raw, "pauses_s": {"steady": STEADY_S, "resting": RESTING_S}})


def _direct(latencies: Latencies, *, is_target: bool) -> list[Figure]:
    """Return the figures of the runs that the stream makes itself."""
    p50, p99 = (Target("≤", limit) if is_target else None for limit in (4.0, 10.0))
    return [
        Figure('  with via="direct": p50', latencies.at(50), "ms", p50),
        Figure('  with via="direct": p99', latencies.at(99), "ms", p99),
    ]


def _product(tasks: str, folder: Path, paces: Paces) -> list[list[float]]:
    write_project(folder, tasks, SCHEMA)
    with dev(folder), connect(dev_database(folder)) as connection:

        def insert() -> int:
            return int(one(connection, "INSERT INTO pings DEFAULT VALUES RETURNING id"))

        return _measure(insert, folder / "notes.txt", paces)


def _rival(folder: Path, paces: Paces) -> list[list[float]]:
    folder.mkdir(exist_ok=True)
    notes = folder / "notes.txt"
    with servers(folder, postgres=False) as settings:
        url = settings["REDIS_URL"]
        actor = make_actor(url, notes)
        variables = {URL_VARIABLE: url, NOTES_VARIABLE: str(notes), "PYTHONPATH": str(ROOT)}
        numbers = iter(range(1_000_000))

        def send() -> int:
            number = next(numbers)
            actor.send(number)
            return number

        arguments = ["dramatiq", "bench.rivals.plain_dramatiq:set_up"]
        arguments += ["--processes", "1", "--threads", "8"]
        with Program(folder, arguments, variables):
            return _measure(send, notes, paces)


def _measure(cause: Cause, notes: Path, paces: Paces) -> list[list[float]]:
    """The latencies of each pace, in ms, from the return of `cause` to the task's own clock."""
    notes.write_text("")
    _latencies(cause, notes, WARM_UP, STEADY_S)
    return [_latencies(cause, notes, count, pause) for count, pause in paces]


def _latencies(cause: Cause, notes: Path, count: int, pause: tuple[float, float]) -> list[float]:
    caused_ns: dict[int, int] = {}
    for _ in range(count):
        time.sleep(random.uniform(*pause))
        number = cause()
        caused_ns[number] = time.time_ns()
    wait_until(lambda: caused_ns.keys() <= _entered(notes).keys(), DRAIN_S, "all entered", 0.1)
    entered_ns = _entered(notes)
    return [(entered_ns[number] - at) / 1e6 for number, at in caused_ns.items()]


def _entered(notes: Path) -> dict[int, int]:
    """When each number was first entered."""
    entered: dict[int, int] = {}
    for line in notes.read_text().splitlines():
        number, at_ns = map(int, line.split())
        entered.setdefault(number, at_ns)
    return entered
