"""The pages of tasks: all that this `serve` knows, and one with what it does and how it goes."""

from __future__ import annotations

from triggerkit.runs.admin.browse import list_runs
from triggerkit.runs.admin.error_groups import group_errors
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.admin.tasks import TaskCounts, count_tasks
from triggerkit.web.api.problems import NotFound
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown

#: Runs on a task's page.
PAGE_RUNS = 20


async def show_tasks(asked: Asked) -> Answer:
    """Show all tasks, and those that have runs though no code of this process has them."""
    async with asked.call.state() as state:
        counts = await count_tasks(state)
    known = {task.name: task for task in asked.call.tasks}
    values = {
        "tasks": [known[name] for name in sorted(known)],
        "counts": {name: counts.get(name, TaskCounts()) for name in known},
        "unknown": {name: counts[name] for name in sorted(counts) if name not in known},
    }
    return Shown("tasks.html", "Tasks", values)


async def show_task(asked: Asked) -> Answer:
    """Show one task: where it stands, how it is run, its newest runs and its errors."""
    name = asked.path("name")
    task = next((task for task in asked.call.tasks if task.name == name), None)
    async with asked.call.state() as state:
        runs, _ = await list_runs(state, RunFilter(task=name), limit=PAGE_RUNS)
        if task is None and not runs:
            known = ", ".join(sorted(task.name for task in asked.call.tasks)) or "none"
            raise NotFound(f"no task is named {name!r}; known tasks: {known}")
        counts = (await count_tasks(state)).get(name, TaskCounts())
        errors = await group_errors(state, task=name)
    values = {"name": name, "task": task, "runs": runs, "counts": counts, "errors": errors[:10]}
    return Shown("task.html", f"Task {name}", values)


ROUTES = (Route("/tasks", show_tasks), Route("/tasks/{name}", show_task))
