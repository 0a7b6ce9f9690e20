"""Attempts that execute in this process: each can be stopped from outside."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable
from typing import Any

from triggerkit.runs.run import ClaimedRun


class Stopped(BaseException):
    """Raised inside of an attempt to stop it. No `Exception`, which the task might catch."""


class TimedOut(Stopped):
    """The attempt took longer than the task's `max_duration`."""


class Canceled(Stopped):
    """The run was canceled while it executed."""


class Attempt:
    """One attempt that executes. `stop` may be called from any thread, once."""

    def __init__(self, run: ClaimedRun, deadline: float | None) -> None:
        """`deadline` is in monotonic seconds."""
        self.run = run
        self.deadline = deadline
        self.lock = threading.Lock()
        #: Why it was stopped, once it was, and when (monotonic seconds).
        self.reason: type[Stopped] | None = None
        self.stopped_at = 0.0
        self._raise: Callable[[type[Stopped]], None] | None = None
        self._forget: Callable[[], Any] | None = None

    def enter_thread(self) -> None:
        """The task's code runs on this thread from now on."""
        thread_id = threading.get_ident()
        self._enter(lambda reason: _raise_in_thread(thread_id, reason), _forget_pending)

    def enter_task(self) -> None:
        """The task's code runs in this asyncio task from now on."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def cancel() -> None:
            # Once the code has ended, what follows it must not be canceled.
            if self._raise is not None:
                task.cancel()

        self._enter(lambda _: _call_soon(loop, cancel), task.uncancel)

    def leave(self) -> None:
        """The task's code has ended: nothing is raised in it any more. Called where it ran."""
        with self.lock:
            self._raise = None
            if self.reason is not None and self._forget is not None:
                self._forget()

    def stop(self, reason: type[Stopped], now: float) -> None:
        """Stop it, if its code still runs."""
        with self.lock:
            if self.reason is None and self._raise is not None:
                self.reason, self.stopped_at = reason, now
                self._raise(reason)

    def _enter(self, raise_: Callable[[type[Stopped]], None], forget: Callable[[], Any]) -> None:
        with self.lock:
            self._raise, self._forget = raise_, forget


def _forget_pending() -> None:
    """What is about to be raised in this thread is not."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), None)


def _raise_in_thread(thread_id: int, reason: type[Stopped]) -> None:
    # It is raised between two steps of Python code: a call that blocks in C is not interrupted.
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(reason))


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[], Any]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
