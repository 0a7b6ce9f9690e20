"""Triggers a project's task many times, as an application does, in a process of its own.

`python -m bench.trigger COUNT` triggers the task `do_nothing` of the module `measured` and prints
the seconds until all COUNT runs were durable.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from triggerkit.runs.client import portal
from triggerkit.worker.task import Task

#: Runs of one round trip.
ROUND_TRIP = 1000


def trigger_many(task: Task[Any, Any], payloads: Sequence[Any]) -> None:
    """Trigger `task` once for each payload."""
    for first in range(0, len(payloads), ROUND_TRIP):
        chunk = payloads[first : first + ROUND_TRIP]
        portal.accept([task.new_run(payload) for payload in chunk])


def main(count: int) -> float:
    """Trigger `count` runs; the seconds it took."""
    task = importlib.import_module("measured").do_nothing
    payloads = [{"number": number} for number in range(count)]
    # Connecting is not what is measured.
    portal.accept([])
    started = time.perf_counter()
    trigger_many(task, payloads)
    seconds = time.perf_counter() - started
    portal.close()
    return seconds


if __name__ == "__main__":
    print(main(int(sys.argv[1])))
