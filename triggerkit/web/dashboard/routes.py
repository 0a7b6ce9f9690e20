"""The table of the dashboard's routes, and which of them the navigation leads to."""

from __future__ import annotations

from typing import Final

from triggerkit.web.dashboard.login import Login, leave
from triggerkit.web.dashboard.page import Route
from triggerkit.web.dashboard.pages import (
    audit,
    connect,
    consumers,
    databases,
    endpoints,
    errors,
    messages,
    overview,
    queues,
    runs,
    schedules,
    tasks,
    trace,
    why,
)
from triggerkit.web.dashboard.session import LOGIN

#: Every page's module. One that is added here is served, guarded, and walked by the tests.
PAGES: Final = (
    overview,
    runs,
    tasks,
    queues,
    errors,
    schedules,
    trace,
    consumers,
    messages,
    endpoints,
    databases,
    connect,
    audit,
    why,
)


def routes() -> tuple[Route, ...]:
    """Return the routes; their login counts wrong keys anew."""
    login = Login()
    return (
        Route(LOGIN, login.show, login.enter, is_open=True),
        Route("/logout", post=leave, is_of_readers=True),
        *(route for page in PAGES for route in page.ROUTES),
    )
