"""The page of queues: how full they are, their limits, and who takes runs of them."""

from __future__ import annotations

from triggerkit.runs.admin.queues import MOST_COUNTED, list_queues
from triggerkit.runs.admin.workers import list_workers
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown


async def show_queues(asked: Asked) -> Answer:
    """Show all queues, and the processes that execute their runs."""
    async with asked.call.state() as state:
        queues = await list_queues(state)
    workers = await list_workers(asked.call.client.pool, 0)
    values = {"queues": queues, "workers": workers, "most": MOST_COUNTED}
    return Shown("queues.html", "Queues", values)


ROUTES = (Route("/queues", show_queues),)
