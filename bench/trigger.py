"""Triggers a project's task many times, as an application does, in a process of its own.

`python -m bench.trigger COUNT` triggers the task `do_nothing` of the module `measured` and prints
the seconds until all COUNT runs were durable.
"""

from __future__ import annotations

import importlib
import sys
import time

from triggerkit.runs.portal import portal


def main(count: int) -> float:
    """Trigger `count` runs; the seconds it took."""
    task = importlib.import_module("measured").do_nothing
    payloads = [{"number": number} for number in range(count)]
    # Connecting is not what is measured.
    task.trigger_many([])
    started = time.perf_counter()
    task.trigger_many(payloads)
    seconds = time.perf_counter() - started
    portal.close()
    return seconds


if __name__ == "__main__":
    print(main(int(sys.argv[1])))
