"""Hold off addresses that gave too many wrong keys or passwords."""

from __future__ import annotations

import time

#: Wrong keys from one address, and the seconds in which it may give as many.
MOST_WRONG = 5
WRONG_S = 60.0

#: Addresses that are remembered; the oldest is forgotten then.
MOST_ADDRESSES = 1000


class Throttle:
    """Counts wrong keys by the address that they come from."""

    def __init__(self) -> None:
        self._wrong: dict[str, list[float]] = {}

    def wait_s(self, address: str) -> int:
        """Return the seconds until the address may try again; 0 is at once."""
        now = time.monotonic()
        recent = [at for at in self._wrong.get(address, ()) if now - at < WRONG_S]
        return 0 if len(recent) < MOST_WRONG else int(WRONG_S - (now - recent[0])) + 1

    def note_wrong(self, address: str) -> None:
        """Count a wrong key."""
        wrong = self._wrong.pop(address, [])
        self._wrong[address] = [*wrong, time.monotonic()][-MOST_WRONG:]
        if len(self._wrong) > MOST_ADDRESSES:
            del self._wrong[next(iter(self._wrong))]
