"""Do one thing to all that fit a list's filter: counted first, then done in the background."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from triggerkit.consumers.declare.manage import Consumers
from triggerkit.consumers.parked.several import count_parked
from triggerkit.consumers.parked.states import PARKED_STATES
from triggerkit.errors import ConfigurationError, TriggerkitError
from triggerkit.runs.admin.browse import count_of
from triggerkit.web.api.problems import NotFound
from triggerkit.web.bulk.store import (
    Bulk,
    find_bulk,
    list_bulks,
    make_bulk,
    resume_bulk,
    stop_bulk,
)
from triggerkit.web.bulk.verbs import VERBS, Verb
from triggerkit.web.dashboard.page import ACTOR, Answer, Asked, Moved, Route, Shown
from triggerkit.web.dashboard.pages import messages, runs
from triggerkit.web.dashboard.search import FILTER, moment_of, read_filter, written

#: Runs that are counted before something is done to them, and the milliseconds it may take.
MOST_COUNTED = 10_000_000
COUNT_MS = 5_000

#: Bulks on a page.
PAGE_BULKS = 50


async def show_bulks(asked: Asked) -> Answer:
    """Show what was asked for, the newest first."""
    async with asked.call.state() as state:
        found = await list_bulks(state, limit=PAGE_BULKS)
    return Shown("bulks.html", "Bulk actions", {"bulks": [_row(one) for one in found]})


async def ask(asked: Asked) -> Answer:
    """Say how many fit, and ask whether it is to be done to them."""
    if "action" not in asked.query:
        return Moved(asked.link("bulks"))
    verb = _verb(asked.query["action"])
    given, problem = _given(verb, asked.query.get(FILTER, ""))
    # What is counted is what it is done to: not what comes, or is no longer so new, later.
    if verb.is_of_runs:
        given.setdefault("until", datetime.now(UTC).isoformat())
        for name in ("since", "until"):
            if name in given:
                try:
                    moment = moment_of(given[name]) or datetime.now(UTC)
                except ValueError as error:
                    problem = f"{name}: {error}"
                else:
                    given[name] = moment.isoformat(timespec="milliseconds")
    count: int | None = None
    if problem is None:
        try:
            count = await _count(asked, verb, given)
        except TriggerkitError as error:
            problem = str(error)
    page = "runs" if verb.is_of_runs else "messages"
    values = {
        "verb": verb,
        "count": count,
        "problem": problem,
        "filter": written(given, _free(verb)),
        "back": asked.link(page, filter=asked.query.get(FILTER, "")),
        "shown": asked.link(page, filter=written(given, _free(verb))),
        "offers_current": verb.action == "replay runs",
    }
    return Shown("bulk_ask.html", verb.label, values, 200 if problem is None else 422, False)


async def start(asked: Asked) -> Answer:
    """Have it done in the background, and show how far it is."""
    verb = _verb(asked.form.get("action", ""))
    given, problem = _given(verb, asked.form.get(FILTER, ""))
    if problem is not None:
        raise ConfigurationError(problem)
    if verb.is_of_runs and "until" not in given:
        raise ConfigurationError("until when? Load the page before again, which counts the runs")
    counted = asked.form.get("count", "")
    async with asked.call.state() as state:
        bulk = await make_bulk(
            state,
            verb.action,
            await _filter(state, verb, given),
            ACTOR,
            expected=int(counted) if counted.isdecimal() and len(counted) < 18 else None,
            current=verb.action == "replay runs" and "current" in asked.form,
        )
    return Moved(asked.link("bulks", bulk.id))


async def show_bulk(asked: Asked) -> Answer:
    """Show how far one is, and what it could not be done to."""
    async with asked.call.state() as state:
        bulk = await find_bulk(state, _id(asked))
    made = asked.link("runs", filter=f"tag:{bulk.tag}") if bulk.action == "replay runs" else None
    return Shown("bulk.html", f"Bulk {bulk.id}", {"bulk": bulk, "made": made, **_row(bulk)})


async def stop(asked: Asked) -> Answer:
    """End one after the step that it is at."""
    async with asked.call.state() as state:
        await stop_bulk(state, _id(asked), ACTOR)
    return Moved(asked.link("bulks", asked.path("id")))


async def resume(asked: Asked) -> Answer:
    """Go on with one that was stopped or has failed."""
    async with asked.call.state() as state:
        await resume_bulk(state, _id(asked), ACTOR)
    return Moved(asked.link("bulks", asked.path("id")))


def _row(bulk: Bulk) -> dict[str, Any]:
    """Return a bulk and its filter as the box of its list has it."""
    given = {name: value for name, value in bulk.filter.items() if name != "statuses"}
    if statuses := bulk.filter.get("statuses"):
        given["status"] = ",".join(statuses)
    free = "text" if bulk.action.endswith("runs") else None
    return {"bulk": bulk, "filter": written({n: str(v) for n, v in given.items()}, free)}


def _verb(name: str) -> Verb:
    if name not in VERBS:
        raise NotFound(f"there is no action {name!r}; there are {', '.join(VERBS)}")
    return VERBS[name]


def _given(verb: Verb, text: str) -> tuple[dict[str, str], str | None]:
    page: Any = runs if verb.is_of_runs else messages
    names = [qualifier.name for qualifier in page.QUALIFIERS]
    given, problem = read_filter(text, names, _free(verb))
    if problem is None and verb.is_of_runs:
        if statuses := verb.statuses_of(given):
            given["status"] = ",".join(statuses)
        else:
            problem = f"this is for runs that are {' or '.join(verb.statuses)}"
    if not verb.is_of_runs and given.get("state", "blocked") not in PARKED_STATES:
        problem = "state: there is no such value"
    return given, problem


def _free(verb: Verb) -> str | None:
    return "text" if verb.is_of_runs else None


async def _filter(state: Any, verb: Verb, given: Mapping[str, str]) -> dict[str, Any]:
    if verb.is_of_runs:
        return runs.wanted_runs(given).as_json()
    if "consumer" in given:
        await Consumers(state, ACTOR).find(given["consumer"])
    return dict(given)


async def _count(asked: Asked, verb: Verb, given: Mapping[str, str]) -> int | None:
    """Return how many fit; None where that takes too long."""
    async with asked.call.state() as state:
        found = await _filter(state, verb, given)
        if not verb.is_of_runs:
            parked: Any = found.get("state")
            return await count_parked(state, found.get("consumer"), parked)
        wanted = runs.wanted_runs(given)
        try:
            return await count_of(state, wanted, MOST_COUNTED, within_ms=COUNT_MS)
        except TriggerkitError:
            return None


def _id(asked: Asked) -> int:
    number = asked.path("id")
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        raise NotFound("a bulk is found by its number")
    return int(number)


ROUTES = (
    Route("/bulks", show_bulks, start),
    Route("/bulks/new", ask),
    Route("/bulks/{id}", show_bulk),
    Route("/bulks/{id}/stop", post=stop),
    Route("/bulks/{id}/resume", post=resume),
)
