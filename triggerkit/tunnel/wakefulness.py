"""Notice that the machine slept: what a connection then has is of before, and has been given up."""

from __future__ import annotations

import asyncio
import time

#: Seconds between two looks at the clock, and without one after which the machine slept.
TICK_S = 1.0
ASLEEP_S = 15.0

_now = time.time


class Wakefulness:
    """Looks at the clock of the wall, which goes on in a sleep, as that of the process does not."""

    def __init__(self) -> None:
        self._seen_at = _now()

    def slept_s(self) -> float:
        """Return the seconds that the machine slept just before; 0 of one that is awake."""
        gap_s = _now() - self._seen_at
        return gap_s if gap_s > ASLEEP_S else 0.0

    async def until_slept(self) -> float:
        """Return the seconds of a sleep, once there was one."""
        while not (slept_s := self.slept_s()):
            self._seen_at = _now()
            await asyncio.sleep(TICK_S)
        self._seen_at = _now()
        return slept_s
