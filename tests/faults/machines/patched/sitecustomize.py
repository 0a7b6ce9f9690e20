"""Runs first in a process whose clock is apart.

faketime 0.9.10 takes the place of clock_nanosleep, and refuses to sleep until a time of the
monotonic clock, as `time.sleep` does.
"""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: SupportsIndex | float) -> None:
    select.select([], [], [], float(seconds))


time.sleep = _sleep
