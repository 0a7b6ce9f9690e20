"""Holds what was read from the stream ahead of the log, bounded by bytes."""

from __future__ import annotations

import asyncio
from time import monotonic

from triggerkit.replication.capture import TransactionPart

#: How early a timer may fire, and how long after it was due somebody waits for the last look.
_EARLY_S = 0.002
_LATE_S = 0.001


class ReadAhead:
    """A queue of parts between who reads the stream and who writes the log.

    One puts, one takes; whoever takes gets all that is there, so that an append has what came while
    the one before it was committed.
    """

    def __init__(self, most_bytes: int) -> None:
        """Let `put` wait while it would hold more than `most_bytes`, unless it holds nothing."""
        self._most_bytes = most_bytes
        self._parts: list[TransactionPart] = []
        self._changed = asyncio.Event()
        self.size_bytes = 0
        #: Until then, in seconds of `monotonic`, what is little waits for more.
        self.due_at = 0.0
        self._is_due = False

    async def put(self, parts: list[TransactionPart], size_bytes: int) -> None:
        """Add `parts`, which came in frames of `size_bytes`, once there is room for them."""
        while self.size_bytes and self.size_bytes + size_bytes > self._most_bytes:
            await self._change()
        self._parts += parts
        self.size_bytes += size_bytes
        self._is_due = monotonic() >= self.due_at - _EARLY_S
        self._changed.set()

    async def take(self) -> list[TransactionPart]:
        """Wait for parts, and return all there are."""
        while not self._parts:
            await self._change()
        parts, self._parts = self._parts, []
        self.size_bytes = 0
        self._changed.set()
        return parts

    async def wait_until_due(self, filled_bytes: int) -> None:
        """Wait until it holds `filled_bytes`, or was put something to when it was due.

        Whoever puts looks once more when it is due; if there was nothing, this ends soon after.
        """
        self._is_due = False
        try:
            async with asyncio.timeout(max(0.0, self.due_at + _LATE_S - monotonic())):
                while self.size_bytes < filled_bytes and not self._is_due:
                    await self._change()
        except TimeoutError:
            return

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
