"""The door that triggered runs go through: to the state database, or to what stands in for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol

from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.portal import portal
from triggerkit.runs.results import End
from triggerkit.runs.run import ClaimedRun, NewRun, RunRef


class Door(Protocol):
    """Accepts runs for callers anywhere in the process; see `Portal`."""

    def now(self) -> datetime:
        """Return the time that delays are counted from."""

    def accept(self, runs: Sequence[NewRun]) -> list[RunRef]:
        """Accept `runs`; a handle for each, in order."""

    async def accept_async(self, runs: Sequence[NewRun]) -> list[RunRef]:
        """Do the same from an event loop."""

    def accept_within(self, connection: Any, runs: Sequence[NewRun]) -> list[RunRef]:
        """Accept `runs` if the transaction of `connection` commits."""

    async def accept_within_async(self, connection: Any, runs: Sequence[NewRun]) -> list[RunRef]:
        """Do the same from an event loop."""

    def wait(self, run_id: str, timeout_s: float | None, waiter: ClaimedRun | None = None) -> End:
        """Wait for the end of an awaited run; `waiter` is the run that does, if one does."""

    async def wait_async(
        self, run_id: str, timeout_s: float | None, waiter: ClaimedRun | None = None
    ) -> End:
        """Do the same from an event loop."""

    def find(self, run_id: str) -> dict[str, Any] | None:
        """Return a run whole; None when there is none of this id."""

    async def find_async(self, run_id: str) -> dict[str, Any] | None:
        """Do the same from an event loop."""

    def search(self, wanted: RunFilter, limit: int) -> list[dict[str, Any]]:
        """Return the newest runs that fit, without payloads and outputs."""

    async def search_async(self, wanted: RunFilter, limit: int) -> list[dict[str, Any]]:
        """Do the same from an event loop."""

    def cancel(self, run_id: str) -> bool:
        """Cancel a run; False when it has ended already."""

    async def cancel_async(self, run_id: str) -> bool:
        """Do the same from an event loop."""

    def reschedule(self, run_id: str, delay_s: float) -> None:
        """Have a run that waits start so much later from now."""

    async def reschedule_async(self, run_id: str, delay_s: float) -> None:
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
