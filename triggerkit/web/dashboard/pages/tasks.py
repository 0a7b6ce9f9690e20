"""The pages of tasks: all that this `serve` knows, and one with what it does and how it goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from triggerkit.runs.admin.browse import search_runs
from triggerkit.runs.admin.error_groups import group_errors
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.admin.rolled import read_activity
from triggerkit.runs.admin.tasks import TaskCounts, count_tasks
from triggerkit.runs.keeper.rollups import Step, percentile_s
from triggerkit.state.reading import Reads, Together
from triggerkit.tasks.task import Task
from triggerkit.web.api.executed.runs import run_of
from triggerkit.web.api.problems import NotFound
from triggerkit.web.dashboard.charts import WINDOWS, charts_of, spark, window_of
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown

#: Tasks on a page, and runs on a task's own.
PAGE_TASKS = 50
PAGE_RUNS = 20

#: Milliseconds in which the runs of a task are sought among others.
LOOK_MS = 40

#: Characters of a payload that is put up for editing.
MOST_EDITED = 20_000

#: What a task's activity is shown of.
DAY = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task in the list; `task` is None where this process has it not in its code."""

    name: str
    task: Task[Any, Any, Any] | None
    counts: TaskCounts
    day: Step
    spark: Mapping[str, Any] | None

    @property
    def typical_s(self) -> float | None:
        """Return what half of its runs take at most, from the commit to the end."""
        return percentile_s(self.day.latencies, 0.5)


async def show_tasks(asked: Asked) -> Answer:
    """Show the tasks by name, also those that have runs though no code of this process has them."""
    known = {task.name: task for task in asked.call.tasks}
    now = datetime.now(UTC)
    async with asked.call.state() as state:
        counts = await count_tasks(state)
        names = sorted({*known, *counts})
        page = [name for name in names if name > asked.query.get("cursor", "")][:PAGE_TASKS]
        activity = await read_activity(state, page, now - DAY)
    is_more = bool(page) and page[-1] != names[-1]
    values = {
        "rows": [
            TaskRow(
                name,
                known.get(name),
                counts.get(name, TaskCounts()),
                activity[name].total,
                spark(activity[name], now),
            )
            for name in page
        ],
        "first": asked.link("tasks") if "cursor" in asked.query else None,
        "next": asked.link("tasks", cursor=page[-1]) if is_more else None,
    }
    return Shown("tasks.html", "Tasks", values)


async def show_task(asked: Asked) -> Answer:
    """Show one task: where it stands, how it is run, its newest runs and its errors."""
    name = asked.path("name")
    task = next((task for task in asked.call.tasks if task.name == name), None)
    async with asked.call.state() as state:
        found = await search_runs(state, RunFilter(task=name), limit=PAGE_RUNS, within_ms=LOOK_MS)
        runs = found.runs
        async with Together(state) as reads:
            of_all, charts, example = await asyncio.gather(
                count_tasks(reads),
                charts_of(reads, window_of(asked), name),
                _payload(asked, reads, runs[0]["id"] if task and runs else None),
            )
        counts = of_all.get(name, TaskCounts())
        if task is None and not runs and counts == TaskCounts() and found.back_to is None:
            known = ", ".join(sorted(task.name for task in asked.call.tasks)) or "none"
            raise NotFound(f"no task is named {name!r}; known tasks: {known}")
        errors = await group_errors(state, task=name)
    values = {
        "name": name,
        "task": task,
        "runs": runs,
        "back_to": found.back_to,
        "counts": counts,
        "errors": errors[:10],
        "example": example,
        "charts": charts,
        "window": window_of(asked),
        "windows": list(WINDOWS),
    }
    return Shown("task.html", f"Task {name}", values)


async def _payload(asked: Asked, state: Reads, run_id: str | None) -> str:
    """Return the payload of a run, for somebody to edit; nothing when it is too large for that,
    or not to be seen."""
    if run_id is None or asked.call.settings.triggerkit_hide_values:
        return ""
    payload = (await run_of(state, run_id)).payload
    text = json.dumps(payload, indent=2, ensure_ascii=False)
    return text if len(text) <= MOST_EDITED else ""


ROUTES = (Route("/tasks", show_tasks), Route("/tasks/{name}", show_task))
