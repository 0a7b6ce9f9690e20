"""The page of schedules: what the clock starts, when it did, and when it will."""

from __future__ import annotations

from triggerkit.runs.admin.browse import summaries_of
from triggerkit.runs.admin.schedules import list_schedules
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown


async def show_schedules(asked: Asked) -> Answer:
    """Show all schedules with their last run."""
    async with asked.call.state() as state:
        schedules = await list_schedules(state)
        ids = [one.last_run for one in schedules if one.last_run is not None]
        runs = {run["id"]: run for run in await summaries_of(state, ids)}
    values = {"schedules": schedules, "runs": runs}
    return Shown("schedules.html", "Schedules", values)


ROUTES = (Route("/schedules", show_schedules),)
