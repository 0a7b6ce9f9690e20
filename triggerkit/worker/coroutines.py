"""Executes the runs of async tasks: many at a time on one event loop, without a thread for each."""

from __future__ import annotations

import asyncio

from triggerkit.runs.run import ClaimedRun
from triggerkit.state.threads import LastingThread
from triggerkit.worker.attempts import Attempts
from triggerkit.worker.event_loop import EventLoopThread
from triggerkit.worker.fetch.fetcher import WAIT_S, Fetcher
from triggerkit.worker.fetch.slots import Slots


class Coroutines:
    """A thread that claims runs of async tasks and starts them on the event loop."""

    def __init__(
        self, fetcher: Fetcher, slots: Slots, attempts: Attempts, event_loop: EventLoopThread
    ) -> None:
        self._fetcher = fetcher
        self._slots = slots
        self._attempts = attempts
        self._event_loop = event_loop
        self._running: set[asyncio.Task[None]] = set()
        self._thread = LastingThread(self._run, "async fetcher")

    def start(self) -> None:
        """Start claiming."""
        self._thread.start()

    def drain(self) -> None:
        """Claim nothing more, and wait until what was claimed is done."""
        self._fetcher.stop()
        self._thread.join()
        self._slots.wait_until_all_free()

    def _run(self) -> None:
        while not self._fetcher.is_stopped:
            runs = self._fetcher.claim(WAIT_S)
            if runs:
                self._slots.take(len(runs))
                self._event_loop.call(self._begin, runs)

    def _begin(self, runs: list[ClaimedRun]) -> None:
        for run in runs:
            self._start(run)

    def _start(self, run: ClaimedRun) -> None:
        begun: list[ClaimedRun] = []
        task = asyncio.create_task(self._execute(run, begun), name=run.id)
        self._running.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            if not begun:
                # Canceled before its first step, as by a task that cancels all others of the loop.
                self._start(run)

        task.add_done_callback(done)

    async def _execute(self, run: ClaimedRun, begun: list[ClaimedRun]) -> None:
        begun.append(run)
        is_freed = False
        try:
            is_freed = not await self._attempts.aexecute(run)
        finally:
            if not is_freed:
                self._slots.release()
