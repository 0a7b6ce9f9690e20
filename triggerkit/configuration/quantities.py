"""Read durations and sizes as people write them: `7d`, `30m`, `20GB`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quantity:
    """The units of a quantity, each in its smallest one, and examples of how it is written."""

    units: Mapping[str, int]
    examples: str

    def read(self, text: str) -> float:
        """Return what `text` says, in the smallest unit.

        Raises:
            ValueError: it is not understood, or nothing.
        """
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", text.strip())
        if found is None or found[2].lower() not in self.units or not float(found[1]):
            raise ValueError(f"it is not understood; write it as {self.examples}")
        return float(found[1]) * self.units[found[2].lower()]


SECONDS = Quantity({"s": 1, "m": 60, "h": 3600, "d": 86_400}, "7d, 12h, 30m or 45s")

BYTES = Quantity(
    {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}, "20GB or 500MB"
)
