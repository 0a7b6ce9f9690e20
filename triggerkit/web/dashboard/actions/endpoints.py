"""Test an endpoint, and push again to one that was gone."""

from __future__ import annotations

from triggerkit.web.api.captured.endpoints import store_of
from triggerkit.web.api.captured.endpoints import test_endpoint as send_test
from triggerkit.web.dashboard.page import ACTOR, Answer, Asked, Moved, Route, Shown


async def test(asked: Asked) -> Answer:
    """Send a message that starts nothing, and show step by step what came back."""
    report = await send_test(asked.call, asked.path("name"))
    values = {"name": asked.path("name"), "report": report}
    return Shown("endpoint_test.html", f"Test of {asked.path('name')}", values, is_live=False)


async def enable(asked: Asked) -> Answer:
    """Push again to an endpoint that answered 410."""
    async with asked.call.state() as state:
        await store_of(asked.call, state, ACTOR).enable(asked.path("name"))
    return Moved(asked.link("endpoints", asked.path("name")))


ROUTES = (
    Route("/endpoints/{name}/test", post=test),
    Route("/endpoints/{name}/enable", post=enable),
)
