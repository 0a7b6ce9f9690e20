"""The page of queues: how full they are, what went through them, and who takes runs of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from triggerkit.runs.admin.queues import QueueInfo, list_queues
from triggerkit.runs.admin.rolled import Activity, read_activity
from triggerkit.runs.admin.unfinished import MOST_COUNTED
from triggerkit.runs.admin.workers import list_workers
from triggerkit.runs.keeper.rollups import percentile_s
from triggerkit.web.dashboard.charts import spark
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown

#: Queues on a page, and what their activity is shown of.
PAGE_QUEUES = 50
DAY = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A queue in the list, with the activity of the tasks that are declared for it here."""

    queue: QueueInfo
    activity: Activity
    spark: Mapping[str, Any] | None

    @property
    def wait_s(self) -> float | None:
        """Return what 95 of 100 runs wait at most from being queued to their start."""
        return percentile_s(self.activity.total.waits, 0.95)


async def show_queues(asked: Asked) -> Answer:
    """Show the queues by name, and the processes that execute their runs."""
    now = datetime.now(UTC)
    tasks = {task.name: task.queue for task in asked.call.tasks}
    async with asked.call.state() as state:
        queues = await list_queues(state)
        after = asked.query.get("cursor", "")
        page = [queue for queue in queues if queue.name > after][:PAGE_QUEUES]
        shown = {queue.name for queue in page}
        tasks = {name: queue for name, queue in tasks.items() if queue in shown}
        of_tasks = await read_activity(state, sorted(tasks), now - DAY)
    workers = await list_workers(asked.call.client.pool, 0)
    rows = []
    for queue in page:
        activity = joined(of_tasks[name] for name, of in tasks.items() if of == queue.name)
        rows.append(QueueRow(queue, activity, spark(activity, now)))
    is_more = bool(page) and page[-1].name != queues[-1].name
    values = {
        "rows": rows,
        "workers": workers,
        "most": MOST_COUNTED,
        "first": asked.link("queues") if "cursor" in asked.query else None,
        "next": asked.link("queues", cursor=page[-1].name) if is_more else None,
    }
    return Shown("queues.html", "Queues", values)


def joined(activities: Iterable[Activity]) -> Activity:
    """Return the activity of several tasks together."""
    total = Activity()
    for activity in activities:
        total.total.add(activity.total)
        for hour, (accepted, failed) in activity.hours.items():
            before = total.hours.get(hour, (0, 0))
            total.hours[hour] = before[0] + accepted, before[1] + failed
    return total


ROUTES = (Route("/queues", show_queues),)
