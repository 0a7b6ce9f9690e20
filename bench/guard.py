"""Fails when the product became much slower: `python -m bench.guard [T1 T3 T4] [--store]`.

Quick rounds of T1, T3 and T4 give ratios to their limit or rival in the same run, which depend less
on the machine than times do. One that is worse than `TOLERATED` of the stored ratio in each of
`TRIES` rounds fails. `--store` writes the ratios of this run to `guard.json`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import orjson

from bench.figures import Scale
from bench.targets import latency, runs, throughput

STORED = Path(__file__).parent / "guard.json"

#: The part of a stored ratio that is still taken for the machine's noise.
TOLERATED = 0.6

#: Rounds that a ratio is measured in before it counts as worse, and seconds after which none is
#: begun: two minutes are usual.
TRIES = 3
PATIENCE_S = 240.0


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
BENCHMARKS: dict[str, Callable[[], dict[str, float]]] = {
    "T1": _throughput,
    "T3": _runs,
    "T4": _latency,
}


def worse(stored: Mapping[str, float], measured: Mapping[str, float]) -> list[str]:
    """Return the figures of `measured` that are below what is tolerated of `stored`."""
    return [name for name, ratio in measured.items() if ratio < TOLERATED * stored.get(name, 0.0)]


def main(arguments: Sequence[str]) -> int:
    """Measure, print and compare; 1 when a figure is worse."""
    stored: dict[str, float] = orjson.loads(STORED.read_bytes()) if STORED.exists() else {}
    is_to_store = "--store" in arguments
    names = [name for name in BENCHMARKS if name in arguments] or list(BENCHMARKS)
    until = time.monotonic() + PATIENCE_S
    best: dict[str, float] = {}
    for name in names:
        best |= best_of(BENCHMARKS[name], {} if is_to_store else stored, until)
    if is_to_store:
        STORED.write_bytes(orjson.dumps(stored | best, option=orjson.OPT_INDENT_2) + b"\n")
        stored = best
    slower = worse(stored, best)
    for name, ratio in best.items():
        mark = f": below {TOLERATED} of it" if name in slower else ""
        print(f"{name}: {ratio:.3g} (stored: {stored.get(name, 0.0):.3g}){mark}", flush=True)
    return 1 if slower else 0


def best_of(
    measure: Callable[[], dict[str, float]], stored: Mapping[str, float], until: float
) -> dict[str, float]:
    """Return the best of each ratio, of one round where none is worse than what is stored."""
    best: dict[str, float] = {}
    for _ in range(TRIES):
        best = {name: max(ratio, best.get(name, 0.0)) for name, ratio in measure().items()}
        if not worse(stored, best) or time.monotonic() > until:
            break
    return best


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
