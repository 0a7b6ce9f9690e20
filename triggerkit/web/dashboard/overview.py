"""The pages of the whole: what `triggerkit status` knows, the consumers, and "Why?"."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from triggerkit.errors import CannotConnect, ConfigurationError, TriggerkitError
from triggerkit.web.api.backfills import Which, list_backfills
from triggerkit.web.api.consumers import list_consumers, show_consumer, show_health
from triggerkit.web.api.messages import ParkedFilter, list_messages
from triggerkit.web.dashboard.page import Answer, Asked, Shown
from triggerkit.why.answer import DONE, UNDER_WAY
from triggerkit.why.ask import Question, ask

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

#: How bad a problem is, the worst first.
_SEVERITIES = ("error", "warning", "advice")

#: Problems and parked messages on a page.
MOST_PROBLEMS = 100
PAGE_MESSAGES = 50


async def show_overview(asked: Asked) -> Answer:
    """Show whether it is ready, and what needs somebody."""
    if asked.overview is None:
        raise ConfigurationError("this process does not know the others; ask `triggerkit serve`")
    call = asked.call
    found = await asked.overview(call.settings, call.client.pool, call.tasks)
    problems = sorted(_problems(found), key=lambda one: _SEVERITIES.index(one["severity"]))
    values = {
        "found": found,
        "consumers": found["consumers"],
        "problems": problems[:MOST_PROBLEMS],
        "problems_left_out": max(0, len(problems) - MOST_PROBLEMS),
    }
    return Shown("overview.html", "Overview", values)


async def show_consumers(asked: Asked) -> Answer:
    """Show all consumers with how far behind they are."""
    found = await list_consumers(asked.call)
    return Shown("consumers.html", "Consumers", {"consumers": found.data})


async def show_one_consumer(asked: Asked) -> Answer:
    """Show one consumer: definition, health, backfills and parked messages."""
    name = asked.path("name")
    consumer = await show_consumer(asked.call, name)
    backfills = await list_backfills(asked.call, Which(all=True))
    wanted = ParkedFilter(consumer=name, limit=PAGE_MESSAGES, cursor=asked.query.get("cursor"))
    parked = await list_messages(asked.call, wanted)
    values = {
        "consumer": consumer,
        "health": await show_health(asked.call, name),
        "definition": consumer.definition.model_dump(mode="json", exclude_none=True),
        "backfills": [one for one in reversed(backfills.data) if one.consumer == name],
        "parked": parked.data,
        "next": asked.link("consumers", name, cursor=parked.next) if parked.next else None,
    }
    return Shown("consumer.html", f"Consumer {name}", values)


async def show_why(asked: Asked) -> Answer:
    """Answer why a row, a run or a position has no effect; ask first where nothing is given."""
    words = _words(asked.query.get("q", ""))
    if not words:
        return Shown("why.html", "Why?", {"answer": None})
    call = asked.call
    try:
        answer = await ask(call.client.pool, call.settings, call.tasks, Question.of(words))
    except CannotConnect:
        raise
    except TriggerkitError as error:
        status = 422 if isinstance(error, ConfigurationError) else 404
        return Shown("why.html", "Why?", {"answer": None, "problem": str(error)}, status)
    mark = "good" if answer.code in DONE else "going" if answer.code in UNDER_WAY else "bad"
    return Shown("why.html", "Why?", {"answer": answer, "mark": mark})


def _words(text: str) -> list[str]:
    """Return the words of a search; a value with spaces stands in quotes."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _problems(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for kind, what in _WITH_PROBLEMS.items():
        for one in found[kind]:
            name = one.get("name") or one.get("task") or one.get("hostname") or ""
            for problem in one["problems"]:
                yield {**problem, "what": what, "of": name}
