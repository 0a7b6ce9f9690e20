"""Holds what was read from the stream ahead of the log, bounded by bytes."""

from __future__ import annotations

import asyncio

from triggerkit.replication.capture import TransactionPart


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

    async def put(self, parts: list[TransactionPart], size_bytes: int) -> None:
        """Add `parts`, which came in frames of `size_bytes`, once there is room for them."""
        while self.size_bytes and self.size_bytes + size_bytes > self._most_bytes:
            await self._change()
        self._parts += parts
        self.size_bytes += size_bytes
        self._changed.set()

    async def take(self) -> list[TransactionPart]:
        """Wait for parts, and return all there are."""
        while not self._parts:
            await self._change()
        parts, self._parts = self._parts, []
        self.size_bytes = 0
        self._changed.set()
        return parts

    async def wait_until_filled(self, size_bytes: int, timeout_s: float) -> None:
        """Wait until it holds `size_bytes`, `timeout_s` at most."""
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                while self.size_bytes < size_bytes:
                    await self._change()
        except TimeoutError:
            return

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
