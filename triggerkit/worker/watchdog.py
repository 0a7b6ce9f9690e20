"""Stops attempts that take too long or are canceled, and tells of an event loop that is blocked."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

from triggerkit.state.threads import LastingThread
from triggerkit.worker.attempt import Attempt, Canceled, HandedBack, TimedOut

logger = logging.getLogger("triggerkit.worker")

#: Seconds between two looks.
LOOK_S = 0.25

#: Seconds an attempt that was stopped may take to end; then it counts as ended, and its process is
#: replaced, since nothing else frees what it holds.
GRACE_S = 5.0

#: Seconds that a run that waits for another one has when its worker is to end.
WAITING_S = 5.0

#: Seconds for which the event loop may run one piece of code; async runs all wait for it.
BLOCKED_S = 1.0

#: Frames of a blocked loop that are shown.
_FRAMES = 12


class Watchdog:
    """A thread that looks after the attempts of a process."""

    def __init__(self, abandon: Callable[[Attempt], None]) -> None:
        """`abandon` is called with an attempt that does not end though it was stopped."""
        self._abandon = abandon
        #: By run and number: after a lost lease two attempts of a run may execute here.
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._hand_back_at: float | None = None
        self._ended = threading.Event()
        self._thread = LastingThread(self._watch, "watchdog", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._asked_at: float | None = None
        self._told = False

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def watch_loop(self, loop: asyncio.AbstractEventLoop, thread_id: int) -> None:
        """Tell when `loop`, which runs on that thread, is blocked."""
        self._loop, self._loop_thread = loop, thread_id

    def hand_back_waiting(self) -> None:
        """The worker ends: soon, stop the runs that still wait for others, so that other workers
        execute them. What they wait for may be for this worker alone, which takes nothing more."""
        self._hand_back_at = time.monotonic() + WAITING_S

    def stop(self) -> None:
        """Stop looking."""
        self._ended.set()

    def begins(self, attempt: Attempt) -> None:
        """`attempt` executes: stop an earlier one of its run, whose outcome counts no more."""
        run = attempt.run
        self._attempts[run.id, run.attempt] = attempt
        for number in range(1, run.attempt):
            if (earlier := self._attempts.get((run.id, number))) is not None:
                earlier.stop(HandedBack, time.monotonic())

    def ends(self, attempt: Attempt) -> bool:
        """`attempt` has ended; False when it was given up before."""
        return self._attempts.pop((attempt.run.id, attempt.run.attempt), None) is not None

    def cancel(self, run_id: str) -> None:
        """Stop a run, if it executes here."""
        for attempt in list(self._attempts.values()):
            if attempt.run.id == run_id:
                attempt.stop(Canceled, time.monotonic())

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_S):
            now = time.monotonic()
            for attempt in list(self._attempts.values()):
                self._look(attempt, now)
            if self._loop is not None:
                self._look_at_loop(self._loop, now)

    def _look(self, attempt: Attempt, now: float) -> None:
        if attempt.stopped_at is None:
            is_over = self._hand_back_at is not None and now > self._hand_back_at
            if is_over and attempt.is_waiting():
                attempt.stop(HandedBack, now)
            elif attempt.deadline is not None and now > attempt.deadline:
                attempt.stop(TimedOut, now)
        elif now > attempt.stopped_at + GRACE_S and self.ends(attempt):
            self._abandon(attempt)
            logger.error(
                "%s of %s did not stop; replacing its process",
                attempt.run.id,
                attempt.run.task,
            )

    def _look_at_loop(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        if self._asked_at is None:
            if not loop.is_closed() and self._attempts:
                self._asked_at, self._told = now, False
                loop.call_soon_threadsafe(self._answer)
        elif now - self._asked_at > BLOCKED_S and not self._told:
            self._told = True
            logger.warning(
                "the event loop has been blocked for %.1f s: all async runs wait; call what blocks "
                "by asyncio.to_thread, or make the task a plain function\n%s",
                now - self._asked_at,
                self._stack(),
            )

    def _answer(self) -> None:
        self._asked_at = None

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        return "" if frame is None else "".join(traceback.format_stack(frame)[-_FRAMES:])
