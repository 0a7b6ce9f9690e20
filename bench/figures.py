"""What a benchmark reports: figures with their targets, and the raw measurements behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure has to reach: at least or at most `limit`, in the figure's unit."""

    bound: Literal["≥", "≤"]
    limit: float

    def met_by(self, value: float) -> bool:
        """Whether `value` reaches the target."""
        return value >= self.limit if self.bound == "≥" else value <= self.limit

    def __str__(self) -> str:
        return f"{self.bound} {shown(self.limit)}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. Without a target it is a note."""

    what: str
    value: float
    unit: str
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether it reaches its target, None when it has none."""
        return None if self.target is None else self.target.met_by(self.value)

    def as_json(self) -> dict[str, Any]:
        """The figure for `results.json`."""
        return {
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "target": None if self.target is None else str(self.target),
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one benchmark."""

    figures: list[Figure]
    raw: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: `quick` shows that a benchmark works, `full` is the largest."""

    name: Literal["quick", "normal", "full"] = "normal"

    def pick(self, quick: int, normal: int, full: int | None = None) -> int:
        """The number for this scale; without `full` it is as `normal`."""
        if self.name == "quick":
            return quick
        return normal if self.name == "normal" or full is None else full


@dataclass(frozen=True, slots=True)
class Latencies:
    """A sample of latencies, in milliseconds."""

    samples: tuple[float, ...]

    def at(self, percent: float) -> float:
        """The smallest sample that `percent` of the samples do not exceed."""
        ordered = sorted(self.samples)
        return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]

    def as_json(self) -> dict[str, Any]:
        """Percentiles and every sample, in the order measured."""
        percentiles = {f"p{p}": round(self.at(p), 3) for p in (50, 95, 99)}
        ordered = [round(sample, 3) for sample in self.samples]
        return {**percentiles, "max": max(ordered), "samples": ordered}


def middle(values: Sequence[float]) -> float:
    """The median of the rounds."""
    return float(median(values))


def shown(value: float) -> str:
    """A number as people read it: three significant digits, thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
