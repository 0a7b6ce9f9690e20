"""The door that triggered runs go through: to the state database, or to what stands in for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol

import psycopg

from triggerkit.runs.client import portal
from triggerkit.runs.results import End
from triggerkit.runs.run import Handle, NewRun


class Door(Protocol):
    """Accepts runs for callers anywhere in the process; see `Portal`."""

    def now(self) -> datetime:
        """Return the time that delays are counted from."""

    def accept(self, runs: Sequence[NewRun]) -> list[Handle]:
        """Accept `runs`; a handle for each, in order."""

    async def accept_async(self, runs: Sequence[NewRun]) -> list[Handle]:
        """Do the same from an event loop."""

    def accept_within(
        self, connection: psycopg.Connection[Any], runs: Sequence[NewRun]
    ) -> list[Handle]:
        """Accept `runs` if the transaction of `connection` commits."""

    async def accept_within_async(
        self, connection: psycopg.AsyncConnection[Any], runs: Sequence[NewRun]
    ) -> list[Handle]:
        """Do the same from an event loop."""

    def wait(self, run_id: str, timeout_s: float | None) -> End:
        """Wait for the end of an awaited run."""

    async def wait_async(self, run_id: str, timeout_s: float | None) -> End:
        """Do the same from an event loop."""

    def forget_key(self, task: str, key: str) -> bool:
        """Forget an idempotency key; False when no run has it."""


_doors: list[Door] = [portal]


def door() -> Door:
    """Return the door that is in use."""
    return _doors[-1]


@contextmanager
def through(other: Door) -> Iterator[None]:
    """Have all runs of this process go through `other` meanwhile, whatever thread makes them."""
    _doors.append(other)
    try:
        yield
    finally:
        _doors.remove(other)
