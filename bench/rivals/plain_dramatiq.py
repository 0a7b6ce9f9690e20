"""Plain Dramatiq on Redis, as its guide sets it up: an actor that notes when it was entered.

Its worker is Dramatiq's own: `python -m dramatiq bench.rivals.plain_dramatiq:set_up`. The version
is the product's own dependency, so it runs from the same environment.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker

#: Where the worker finds its Redis, and where the actor writes.
URL_VARIABLE = "BENCH_REDIS"
NOTES_VARIABLE = "BENCH_NOTES"


def make_actor(url: str, notes: Path) -> dramatiq.Actor[[int], None]:
    """The actor on a broker at `url`; it writes `<number> <time in ns>` to `notes`."""
    broker = RedisBroker(url=url)  # type: ignore[no-untyped-call]

    def enter(number: int) -> None:
        entered_ns = time.time_ns()
        with notes.open("a") as file:
            file.write(f"{number} {entered_ns}\n")

    dramatiq.set_broker(broker)
    return dramatiq.actor(broker=broker)(enter)


def set_up() -> None:
    """Called by Dramatiq's worker."""
    make_actor(os.environ[URL_VARIABLE], Path(os.environ[NOTES_VARIABLE]))
