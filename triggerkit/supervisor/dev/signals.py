"""The signals that end `dev`: the first stops it in order, a second one forces it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any


class StopSignals:
    """SIGINT and SIGTERM as two events; belongs to the running event loop."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.force = asyncio.Event()

    def listen(self) -> None:
        """Take the signals from now on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signaled)

    async def unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Await `work` unless a signal comes first, which cancels it; whether it was done."""
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(self.stop.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return False
        await task
        return True

    def _signaled(self) -> None:
        (self.force if self.stop.is_set() else self.stop).set()
