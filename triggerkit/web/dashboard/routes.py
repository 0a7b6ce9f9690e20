"""The table of the dashboard's routes."""

from __future__ import annotations

from triggerkit.web.dashboard.login import Login, leave
from triggerkit.web.dashboard.overview import (
    show_consumers,
    show_one_consumer,
    show_overview,
    show_why,
)
from triggerkit.web.dashboard.page import Route
from triggerkit.web.dashboard.runs import replay_run, show_run, show_runs, stop_run
from triggerkit.web.dashboard.session import LOGIN


def routes() -> tuple[Route, ...]:
    """Return the routes; their login counts wrong keys anew."""
    login = Login()
    return (
        Route("/", show_overview),
        Route(LOGIN, login.show, login.enter, is_open=True),
        Route("/logout", post=leave),
        Route("/runs", show_runs),
        Route("/runs/{id}", show_run),
        Route("/runs/{id}/replay", post=replay_run),
        Route("/runs/{id}/cancel", post=stop_run),
        Route("/consumers", show_consumers),
        Route("/consumers/{name}", show_one_consumer),
        Route("/why", show_why),
    )
