"""Tries at what should never end: begun again after a loss, which is told once, as its end is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg.errors import InsufficientPrivilege

from triggerkit.state.backoff import doubled

#: Seconds before it is tried again: at first at once, as good as, then doubling up to the longest.
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0

#: What went well for so many seconds was no failed try: the waits begin anew.
GOOD_STRETCH_S = 10.0


class Recovery:
    """Says of `what`, in `logger`, once that it was lost, and once that it is restored."""

    def __init__(
        self, what: str, losses: tuple[type[Exception], ...], logger: logging.Logger
    ) -> None:
        self._what = what
        self._losses = losses
        self._logger = logger
        self._tries = 0
        self._has_run = False
        self._lost_at: float | None = None
        self._good_since: float | None = None
        self._reason = ""

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[None]:
        """Try once; after a loss, end without an error when it is time for the next try."""
        lost: BaseExceptionGroup | None = None
        try:
            yield
        except* self._losses as errors:
            lost = errors
        _raise_if_canceled()
        if lost is not None:
            await asyncio.sleep(self.failed(reason_of(lost)))

    def succeeded(self) -> None:
        """It runs."""
        now = self._good_since = time.monotonic()
        if self._lost_at is not None:
            self._tell(logging.INFO, "restored", f"restored after {now - self._lost_at:.1f} s")
        self._lost_at = None
        self._has_run = True

    def failed(self, reason: str) -> float:
        """It ended for `reason`; returns the seconds until it is to be tried again."""
        now = time.monotonic()
        if self._good_since is not None and now - self._good_since >= GOOD_STRETCH_S:
            self._tries = 0
        self._good_since = None
        self._tries += 1
        if self._lost_at is None:
            self._lost_at = now
            how = "lost" if self._has_run else "cannot be made"
            self._tell(logging.WARNING, "lost", f"{how}: {reason}; trying again")
        elif reason != self._reason:
            self._tell(logging.WARNING, "lost", f"not back yet: {reason}; trying again")
        self._reason = reason
        return doubled(self._tries, FIRST_WAIT_S, LONGEST_WAIT_S)

    def _tell(self, level: int, state: str, message: str) -> None:
        facts = {"event": "connection", "service": self._what, "state": state}
        self._logger.log(level, "%s %s", self._what, message, extra={"facts": facts})


def reason_of(error: BaseException) -> str:
    """Return the first line of the first error in `error`, with what to do about a missing
    right."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    first = str(error).strip().partition("\n")[0] or type(error).__name__
    if isinstance(error, InsufficientPrivilege):
        return f"{first}; `triggerkit check` says what is missing"
    return first


def _raise_if_canceled() -> None:
    # A query interrupted by the cancellation may end its task group by an error of its own.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
