"""The pages of endpoints: where pushes go, and what was answered last."""

from __future__ import annotations

from triggerkit.consumers.trace.answers import last_answers
from triggerkit.web.api.captured.endpoints import list_endpoints
from triggerkit.web.api.captured.endpoints import show_endpoint as find_endpoint
from triggerkit.web.dashboard.forms.declared import declared_at
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown

#: Answers that the page of one endpoint shows.
PAGE_ANSWERS = 50


async def show_endpoints(asked: Asked) -> Answer:
    """Show all endpoints with their last answers; of secrets nothing."""
    found = await list_endpoints(asked.call)
    async with asked.call.state() as state:
        answers = await last_answers(state)
    values = {"endpoints": found.data, "answers": answers}
    return Shown("endpoints.html", "Endpoints", values)


async def show_endpoint(asked: Asked) -> Answer:
    """Show one endpoint: the names of its headers, its consumers, and its last answers."""
    name = asked.path("name")
    endpoint = await find_endpoint(asked.call, name)
    async with asked.call.state() as state:
        answers = (await last_answers(state, name, limit=PAGE_ANSWERS)).get(name, [])
    declared = declared_at(asked.call.tasks, endpoint.managed_by, "endpoints", name)
    values = {"endpoint": endpoint, "answers": answers, "declared_at": declared}
    return Shown("endpoint.html", f"Endpoint {name}", values)


ROUTES = (Route("/endpoints", show_endpoints), Route("/endpoints/{name}", show_endpoint))
