"""Fails when the product became much slower: `python -m bench.guard [--store]`.

Quick rounds of T1, T3 and T4 give ratios to their limit or rival in the same run, which depend less
on the machine than times do. One that is worse than `TOLERATED` of the stored ratio in each of
`TRIES` rounds fails. `--store` writes the ratios of this run to `guard.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from bench.figures import Scale
from bench.targets import latency, runs, throughput

STORED = Path(__file__).parent / "guard.json"

#: The part of a stored ratio that is still taken for the machine's noise.
TOLERATED = 0.6

#: Rounds that a ratio is measured in before it counts as worse.
TRIES = 3


def _throughput() -> dict[str, float]:
    rounds = throughput.run(Scale("quick"), is_whole=False).raw["changes_per_s"]
    ratios = [rates["product"] / rates["limit"] for rates in rounds]
    return {"T1: changes a second, by the limit": median(ratios)}


def _runs() -> dict[str, float]:
    raw = runs.run(Scale("quick")).raw["runs_per_s"]
    rival = median(raw["dramatiq sent"])
    return {
        "T3: one run per trigger, by Dramatiq's": median(raw["triggers running"]) / rival,
        "T3: one run per row, by Dramatiq's": median(raw["rows running"]) / rival,
    }


def _latency() -> dict[str, float]:
    raw = latency.run(Scale("quick")).raw
    ours, theirs = (raw[name]["resting"]["p50"] for name in ("product_ms", "dramatiq_ms"))
    return {"T4: Dramatiq's milliseconds to the task, by ours": theirs / ours}


#: What is measured; each figure is the better, the larger it is.
BENCHMARKS: tuple[Callable[[], dict[str, float]], ...] = (_throughput, _runs, _latency)


def worse(stored: Mapping[str, float], measured: Mapping[str, float]) -> list[str]:
    """Return the figures of `measured` that are below what is tolerated of `stored`."""
    return [name for name, ratio in measured.items() if ratio < TOLERATED * stored.get(name, 0.0)]


def main(arguments: Sequence[str]) -> int:
    """Measure, print and compare; 1 when a figure is worse."""
    stored: dict[str, Any] = orjson.loads(STORED.read_bytes()) if STORED.exists() else {}
    best: dict[str, float] = {}
    failed = False
    for measure in BENCHMARKS:
        for _ in range(1 if "--store" in arguments else TRIES):
            measured = measure()
            best |= {name: max(ratio, best.get(name, 0.0)) for name, ratio in measured.items()}
            if not worse(stored, {name: best[name] for name in measured}):
                break
        else:
            failed = True
    for name, ratio in best.items():
        mark = "worse" if name in worse(stored, best) else ""
        print(f"{name}: {ratio:.3g} (stored: {stored.get(name, 0.0):.3g}) {mark}", flush=True)
    if "--store" in arguments:
        STORED.write_bytes(orjson.dumps(best, option=orjson.OPT_INDENT_2) + b"\n")
        return 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
