"""A queue and its limits, as code declares them; `apply` makes them so."""

from __future__ import annotations

import re
from dataclasses import dataclass

from triggerkit.errors import ConfigurationError

_PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue and how much of it may run.

    At most `concurrency` runs of it execute at a time, in all workers together. `rate` is how many
    may start in any so long a time: `"100/m"`, `"5/s"`, `"1000/h"` or `"100/15s"`. Raises
    ConfigurationError when a limit cannot be read.
    """

    name: str
    concurrency: int | None = None
    rate: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,79}", self.name):
            raise ConfigurationError(
                f"{self.name!r} is not a queue's name: letters, digits, _ . - only"
            )
        if self.concurrency is not None and self.concurrency < 1:
            raise ConfigurationError(
                f"queue {self.name}: concurrency must be 1 or more; to stop a queue run: "
                f"triggerkit queues pause {self.name}"
            )
        _ = self.rate_limit

    @property
    def rate_limit(self) -> tuple[int, float] | None:
        """Return how many runs may start in how many seconds."""
        if self.rate is None:
            return None
        read = re.fullmatch(r"(\d+)\s*/\s*(\d*\.?\d*)\s*([smhd])", self.rate)
        count, period, unit = read.groups() if read else ("0", "", "s")
        period_s = float(period or 1) * _PERIODS[unit] if period != "." else 0.0
        if int(count) < 1 or period_s <= 0:
            raise ConfigurationError(
                f"queue {self.name}: {self.rate!r} is no rate; examples are '100/m', '5/s', "
                "'100/15s'"
            )
        return int(count), period_s

    @property
    def has_limits(self) -> bool:
        """Return whether it declares any."""
        return self.concurrency is not None or self.rate is not None
