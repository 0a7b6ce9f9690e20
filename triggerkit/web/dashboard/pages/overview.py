"""The page of the whole: what `triggerkit status` knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from triggerkit.errors import ConfigurationError
from triggerkit.runs.client import Client
from triggerkit.runs.transport.base import TransportAway
from triggerkit.web.dashboard.charts import WINDOWS, charts_of, window_of
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown

#: What of the status has problems, by what they are of.
_WITH_PROBLEMS = {
    "databases": "database",
    "consumers": "consumer",
    "waiting": "task",
    "failing": "task",
    "queues": "queue",
    "workers": "worker",
    "schedules": "schedule",
}

#: The page of what has problems: below it there is one of each name, unless it is alone.
_PAGES = {
    "database": "databases",
    "consumer": "consumers",
    "task": "tasks",
    "queue": "queues",
    "worker": "queues",
    "schedule": "schedules",
}
_ALONE = ("queues", "schedules")

#: How bad a problem is, the worst first.
_SEVERITIES = ("error", "warning", "advice")

#: Seconds in which what carries the ids of runs has answered.
TRANSPORT_S = 2.0

#: Problems on the page, and tasks that fail and queues: those that fail last and wait most.
MOST_PROBLEMS = 10
MOST_FAILING = 15
MOST_QUEUES = 15


async def show_overview(asked: Asked) -> Answer:
    """Show whether it is ready, and what needs somebody."""
    if asked.looks.overview is None:
        raise ConfigurationError("this process does not know the others; ask `triggerkit serve`")
    call = asked.call
    found = await asked.looks.overview(call.settings, call.client.pool, call.tasks)
    away = await _transport_problem(call.client)
    every = [*away, *_problems(found)]
    problems = sorted(every, key=lambda one: _SEVERITIES.index(one["severity"]))
    window = window_of(asked)
    async with call.state() as state:
        charts = await charts_of(state, window)
    values = {
        "charts": charts,
        "window": window,
        "windows": list(WINDOWS),
        "found": {**found, "ready": found["ready"] and not away},
        "consumers": found["consumers"],
        "failing": found["failing"][:MOST_FAILING],
        "queues": sorted(found["queues"], key=_waiting, reverse=True)[:MOST_QUEUES],
        "problems": problems[:MOST_PROBLEMS],
        "problems_left_out": max(0, len(problems) - MOST_PROBLEMS),
    }
    return Shown("overview.html", "Overview", values)


async def _transport_problem(client: Client) -> list[dict[str, Any]]:
    """Return that no run can start now, where what carries their ids does not answer."""
    try:
        async with asyncio.timeout(TRANSPORT_S):
            await client.transport.check()
    except (TransportAway, TimeoutError):
        is_redis = client.settings.triggerkit_broker_url is None
        setting = "REDIS_URL" if is_redis else "TRIGGERKIT_BROKER_URL"
        return [
            {
                "severity": "error",
                "what": "the transport of runs,",
                "of": client.transport.name,
                "path": ("databases",),
                "detail": "It does not answer. Runs are kept, and start once it does.",
                "remedy": f"start that server, or correct {setting}",
            }
        ]
    return []


def _waiting(queue: dict[str, Any]) -> int:
    return int(queue["executing"] + queue["queued"] + queue["held"] + queue["retrying"])


def _problems(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for kind, what in _WITH_PROBLEMS.items():
        for one in found[kind]:
            name = one.get("name") or one.get("task") or one.get("hostname") or ""
            for problem in one["problems"]:
                page = _PAGES[what]
                path = (page,) if page in _ALONE else (page, name)
                yield {**problem, "what": what, "of": name, "path": path}


ROUTES = (Route("/", show_overview),)
