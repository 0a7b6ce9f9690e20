"""Plain Dramatiq on Redis, as its guide sets it up.

Its worker is Dramatiq's own: `python -m dramatiq bench.rivals.plain_dramatiq:set_up`. The version
is the product's own dependency, so it runs from the same environment. `set_up` declares an actor
that notes when it was entered, `set_up_counting` one that does nothing but be counted;
`python -m bench.rivals.plain_dramatiq COUNT` sends it COUNT messages and prints the seconds.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker

#: Where the worker finds its Redis, and where the actor writes: a file, or a folder when counting.
URL_VARIABLE = "BENCH_REDIS"
NOTES_VARIABLE = "BENCH_NOTES"

#: Seconds between two looks at whether there is more to note.
NOTE_S = 0.1


def make_actor(url: str, notes: Path) -> dramatiq.Actor[[int], None]:
    """The actor on a broker at `url`; it writes `<number> <time in ns>` to `notes`."""

    def enter(number: int) -> None:
        entered_ns = time.time_ns()
        with notes.open("a") as file:
            file.write(f"{number} {entered_ns}\n")

    broker = _broker(url)
    return dramatiq.actor(broker=broker)(enter)


def make_counting_actor(url: str, entered_ns: list[int]) -> dramatiq.Actor[[int], None]:
    """An actor that does nothing but append the time to `entered_ns`."""

    def do_nothing(number: int) -> None:  # noqa: ARG001
        entered_ns.append(time.time_ns())

    broker = _broker(url)
    return dramatiq.actor(broker=broker)(do_nothing)


def set_up() -> None:
    """Called by Dramatiq's worker."""
    make_actor(os.environ[URL_VARIABLE], Path(os.environ[NOTES_VARIABLE]))


def set_up_counting() -> None:
    """Called by each process of Dramatiq's worker; what it counted is in a file of its own."""
    entered_ns: list[int] = []
    make_counting_actor(os.environ[URL_VARIABLE], entered_ns)
    note = Path(os.environ[NOTES_VARIABLE]) / str(os.getpid())
    threading.Thread(target=_note, args=[note, entered_ns], daemon=True).start()


def entries(notes: Path) -> tuple[int, int, int]:
    """How often the actor was entered, and when first and last, by all processes, in ns."""
    found = [tuple(map(int, note.read_text().split())) for note in notes.iterdir()]
    lines = [line for line in found if len(line) == 3]
    if not lines:
        return 0, 0, 0
    counts, firsts, lasts = zip(*lines, strict=True)
    return sum(counts), min(firsts), max(lasts)


def send(url: str, count: int) -> float:
    """Send `count` messages one by one, as `.send()` does; the seconds it took."""
    actor = make_counting_actor(url, [])
    started = time.perf_counter()
    for number in range(count):
        actor.send(number)
    return time.perf_counter() - started


def _broker(url: str) -> RedisBroker:
    broker = RedisBroker(url=url)  # type: ignore[no-untyped-call]
    dramatiq.set_broker(broker)
    return broker


def _note(path: Path, entered_ns: list[int]) -> None:
    noted = 0
    while True:
        time.sleep(NOTE_S)
        if (count := len(entered_ns)) > noted:
            path.write_text(f"{count} {entered_ns[0]} {entered_ns[count - 1]}")
            noted = count


if __name__ == "__main__":
    print(send(os.environ[URL_VARIABLE], int(sys.argv[1])))
