"""The unfinished runs of each task."""

from __future__ import annotations

from dataclasses import dataclass

from triggerkit.runs.admin.unfinished import count_unfinished
from triggerkit.state.reading import Reads


@dataclass(slots=True)
class TaskCounts:
    """The unfinished runs of a task that wait for no other of their key, each kind counted up to
    100,000. `held` ones wait for their queue."""

    queued: int = 0
    held: int = 0
    delayed: int = 0
    retrying: int = 0
    executing: int = 0


async def count_tasks(connection: Reads) -> dict[str, TaskCounts]:
    """Return the counts by task."""
    found: dict[str, TaskCounts] = {}
    for (task, status), count in (await count_unfinished(connection, "task")).items():
        setattr(found.setdefault(task, TaskCounts()), status, count)
    return found
