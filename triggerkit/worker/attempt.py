"""Attempts that execute in this process: each can be stopped from outside."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable
from typing import Any

from triggerkit.runs.run import ClaimedRun, Outcome

#: Seconds that the hooks after the task's code have at least, though its time is over.
HOOKS_S = 5.0

#: Raises in what executes; a number tells for which part of the attempt it is meant.
Raise = Callable[[type["Stopped"], int], None]


class Stopped(BaseException):
    """Raised inside of an attempt to stop it. No `Exception`, which the task might catch."""


class TimedOut(Stopped):
    """The attempt took longer than the task's `max_duration`."""


class Canceled(Stopped):
    """The run was canceled while it executed."""


class HandedBack(Stopped):
    """The run is another attempt's: the worker ends while the run waits for another one, or its
    lease was lost and a later attempt has begun."""


class Attempt:
    """One attempt that executes: the task's code, and then its hooks. Any thread may `stop` it."""

    def __init__(self, run: ClaimedRun, deadline: float | None) -> None:
        """`deadline` is in monotonic seconds."""
        self.run = run
        self.deadline = deadline
        self.lock = threading.Lock()
        #: Why the task's code was stopped, if it was.
        self.reason: type[Stopped] | None = None
        #: Since when what executes now is to end (monotonic seconds), if it is.
        self.stopped_at: float | None = None
        #: What has become of it, once the task's code has ended: hooks change nothing of that.
        self.outcome: Outcome | None = None
        #: Whether the task's code waits for other runs.
        self.is_waiting: Callable[[], bool] = lambda: False
        #: What executes now, by number; nothing that can be stopped while it is None.
        self._part: int | None = None
        self._parts = 0
        self._raise: Raise | None = None
        self._forget: Callable[[], Any] = lambda: None

    def enter_thread(self) -> None:
        """Note that the task's code runs on this thread from now on."""
        thread_id = threading.get_ident()
        self._enter(lambda reason, _: _raise_in_thread(thread_id, reason), _forget_pending)

    def enter_task(self) -> None:
        """Note that the task's code runs in this asyncio task from now on."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def cancel(part: int) -> None:
            # Once that part has ended, what follows it must not be canceled.
            if self._part == part:
                task.cancel()

        self._enter(lambda _, part: _call_soon(loop, cancel, part), task.uncancel)

    def enter_hooks(self, outcome: Outcome, now: float) -> None:
        """Note that hooks follow the task's code, which ended with `outcome`. Called where that
        ran.

        They have what time the attempt has left, and a moment at least.
        """
        with self.lock:
            self.outcome = outcome
            if self.deadline is not None or self.stopped_at is not None:
                self.deadline = max(self.deadline or 0.0, now + HOOKS_S)
            self.stopped_at = None
            self._begin_part()

    def leave(self) -> None:
        """Note that what was entered has ended: nothing is raised in it any more. Called where it
        ran."""
        with self.lock:
            self._part = None
            if self.stopped_at is not None:
                self._forget()

    def stop(self, reason: type[Stopped], now: float) -> None:
        """Stop what executes, if it can be stopped and was not yet."""
        with self.lock:
            if self._part is None or self.stopped_at is not None or self._raise is None:
                return
            if self.outcome is None:
                self.reason = reason
            elif reason is Canceled and self.reason is Canceled:
                # A cancellation is told again and again; its hooks are not what it means.
                return
            self.stopped_at = now
            self._raise(reason, self._part)

    def _enter(self, raise_: Raise, forget: Callable[[], Any]) -> None:
        with self.lock:
            self._raise, self._forget = raise_, forget
            self._begin_part()

    def _begin_part(self) -> None:
        self._parts += 1
        self._part = self._parts


def _forget_pending() -> None:
    """Cancel what is about to be raised in this thread."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), None)


def _raise_in_thread(thread_id: int, reason: type[Stopped]) -> None:
    # It is raised between two steps of Python code: a call that blocks in C is not interrupted.
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(reason))


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[int], Any], part: int) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, part)
