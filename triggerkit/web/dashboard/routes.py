"""The table of the dashboard's routes, and which of them the navigation leads to."""

from __future__ import annotations

from typing import Final

from triggerkit.web.dashboard.actions import bulks as to_many
from triggerkit.web.dashboard.actions import consumers as to_consumers
from triggerkit.web.dashboard.actions import endpoints as to_endpoints
from triggerkit.web.dashboard.actions import events as to_events
from triggerkit.web.dashboard.actions import messages as to_messages
from triggerkit.web.dashboard.actions import queues as to_queues
from triggerkit.web.dashboard.actions import runs as to_runs
from triggerkit.web.dashboard.actions import tasks as to_tasks
from triggerkit.web.dashboard.forms import consumers as of_consumers
from triggerkit.web.dashboard.forms import endpoints as of_endpoints
from triggerkit.web.dashboard.login import Login, leave
from triggerkit.web.dashboard.page import Route
from triggerkit.web.dashboard.pages import (
    audit,
    connect,
    consumers,
    databases,
    endpoints,
    errors,
    events,
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
    events,
    databases,
    connect,
    audit,
    why,
)

#: Every module of what is done from pages.
ACTIONS: Final = (
    to_consumers,
    to_endpoints,
    to_events,
    to_messages,
    to_queues,
    to_runs,
    to_tasks,
    to_many,
)

#: Every module of forms by which something is made and changed.
FORMS: Final = (
    of_consumers,
    of_endpoints,
)


def routes() -> tuple[Route, ...]:
    """Return the routes; their login counts wrong keys anew."""
    login = Login()
    return (
        Route(LOGIN, login.show, login.enter, is_open=True),
        Route("/logout", post=leave, is_of_readers=True),
        *(route for module in (*PAGES, *ACTIONS, *FORMS) for route in module.ROUTES),
    )
