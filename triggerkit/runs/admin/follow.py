"""Following runs while they change: what is new since the last look."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psycopg

from triggerkit.errors import UnknownRun
from triggerkit.runs.admin.browse import MAX_LIMIT, list_runs, spans_of, summaries_of
from triggerkit.runs.admin.control import UNFINISHED
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.run import FINAL

#: Seconds by which a run may be committed later than its id says.
LATE_S = 30.0


@dataclass(slots=True)
class Follower:
    """Tells the runs that fit and that came or changed their status since it began."""

    connection: psycopg.AsyncConnection
    wanted: RunFilter
    _seen: dict[str, tuple[str, int]] = field(default_factory=dict)
    _from: float = field(default_factory=time.time)

    async def begin(self) -> None:
        """Take note of the runs that are under way now."""
        unfinished = replace(self.wanted, statuses=UNFINISHED)
        found, _ = await list_runs(self.connection, unfinished, limit=MAX_LIMIT)
        self._seen = {run["id"]: _state(run) for run in found}

    async def look(self) -> list[dict[str, Any]]:
        """Return each run that is new or changed since the last look, once, the oldest first."""
        since = max(self._from, time.time() - LATE_S)
        recent = replace(self.wanted, statuses=(), since=datetime.fromtimestamp(since, UTC))
        found, _ = await list_runs(self.connection, recent, limit=MAX_LIMIT)
        known = {run["id"] for run in found}
        watched = [i for i, (status, _) in self._seen.items() if status not in FINAL]
        found += await summaries_of(self.connection, [i for i in watched if i not in known])
        changed = [run for run in found if self._seen.get(run["id"]) != _state(run)]
        self._seen |= {run["id"]: _state(run) for run in changed}
        # What has ended is forgotten once it cannot be found as new any more.
        self._seen = {
            i: state for i, state in self._seen.items() if state[0] not in FINAL or i in known
        }
        return sorted(changed, key=lambda run: str(run["id"]))


@dataclass(slots=True)
class RunFollower:
    """Tells what one run says, until it has ended."""

    connection: psycopg.AsyncConnection
    run_id: str
    _last: int = 0

    async def look(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the run as it is, and the lines and spans since the last look.

        Raises:
            UnknownRun: there is none of this id.
        """
        found = await summaries_of(self.connection, [self.run_id])
        if not found:
            raise UnknownRun(f"no run has the id {self.run_id!r}; see `triggerkit runs list`")
        said = await spans_of(self.connection, self.run_id, self._last)
        self._last = said[-1]["id"] if said else self._last
        return found[0], said


def _state(run: dict[str, Any]) -> tuple[str, int]:
    return run["status"], run["attempt"]
