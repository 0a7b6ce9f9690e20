"""The figures of long runs together: what was lost is added up, of the rest the worst counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.figures import Figure, Target


def figures_of(runs: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Return the figures of runs that were made with different seeds."""

    def total(name: str) -> float:
        return float(sum(one[name] for one in runs))

    def share(part: str, whole: str) -> float:
        return max(100.0 * float(one[part]) / max(1.0, float(one[whole])) for one in runs)

    def slowest(name: str) -> float:
        return max(float(one[name]) for one in runs)

    kept = min(100 * one["faulted_per_s"] / one["quiet_per_s"] for one in runs)
    none = Target("≤", 0)
    return [
        Figure("runs", len(runs), "runs"),
        Figure("changes", total("events"), "changes"),
        Figure("faults", total("faults"), "faults"),
        Figure("lost", total("lost"), "changes", none),
        Figure("out of order", total("out_of_order"), "changes", none),
        Figure("pushed twice", share("pushed_twice", "deliveries"), "%", Target("≤", 0.1)),
        Figure("executed twice", share("executed_twice", "effects"), "%"),
        Figure("recovery p95", slowest("recovery_p95_s"), "s", Target("≤", 15)),
        Figure("longest recovery", slowest("recovery_max_s"), "s"),
        Figure("throughput while faulted", kept, "%", Target("≥", 50)),
        Figure("longest run", slowest("seconds") / 60, "min"),
    ]
