"""Reading how runs went, for charts: what the keeper rolled up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from triggerkit.runs.keeper.rollups import HOUR_S, Step, floor_to, step_of
from triggerkit.state.reading import Reads, rows_of

_READ = """
SELECT at, task, accepted, completed, failed, open, latencies, waits FROM triggerkit.run_rollups
WHERE step_s = %s AND task = ANY (%s) AND at >= %s ORDER BY at
"""


@dataclass(slots=True)
class Activity:
    """How a task's runs went: all in all, and how many were accepted, and failed, by the hour."""

    total: Step = field(default_factory=Step)
    hours: dict[datetime, tuple[int, int]] = field(default_factory=dict)

    def add(self, at: datetime, step: Step) -> None:
        """Take a step in."""
        self.total.add(step)
        self.hours[at] = step.accepted, step.failed


async def read_steps(
    connection: Reads, step_s: int, task: str, since: datetime
) -> dict[datetime, Step]:
    """Return the steps of a task since then; of all tasks by `ALL`."""
    found = await rows_of(connection, _READ, [step_s, [task], since])
    return {at: step_of(values) for at, _, *values in found}


async def read_activity(
    connection: Reads, tasks: Sequence[str], since: datetime
) -> dict[str, Activity]:
    """Return how the runs of tasks went that were accepted since the hour of then."""
    rows = await rows_of(connection, _READ, [HOUR_S, list(tasks), floor_to(since, HOUR_S)])
    found: dict[str, Activity] = {task: Activity() for task in tasks}
    for at, task, *values in rows:
        found[task].add(at, step_of(values))
    return found
