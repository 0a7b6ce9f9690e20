"""The pages of runs: the list, one run with its way, and what can be done to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args

from pydantic import ValidationError

from triggerkit.configuration.table_name import TableName
from triggerkit.consumers.trace.changes import Trace, trace
from triggerkit.consumers.trace.runs import position_of_run
from triggerkit.consumers.trace.way import Bar, RunWay, steps_of_run
from triggerkit.errors import ConfigurationError, TriggerkitError
from triggerkit.runs.admin.browse import (
    MOST_SPANS,
    FoundRuns,
    count_of,
    count_soon,
    search_runs,
)
from triggerkit.runs.admin.error_groups import own_places
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.run import FINAL, Status
from triggerkit.state.reading import Reads, Together
from triggerkit.web.api.executed.run_models import Run, RunSpan, Wanted, WantedPage
from triggerkit.web.api.executed.runs import run_of
from triggerkit.web.bulk.verbs import verbs_of_runs
from triggerkit.web.dashboard.diff import columns_of, knows_old_values
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown
from triggerkit.web.dashboard.search import PAGING, Qualifier, Search, moment_of
from triggerkit.web.dashboard.values import TEXT_CHARS
from triggerkit.web.dashboard.waterfall import draw, joined

QUALIFIERS = (
    Qualifier("status", "failed", get_args(Status)),
    Qualifier("task", "embed_posts"),
    Qualifier("table", "posts"),
    Qualifier("key", "17"),
    Qualifier("tag", "nightly"),
    Qualifier("queue", "default"),
    Qualifier("since", "1h", ("10m", "1h", "24h")),
    Qualifier("until", "2026-01-31T12:00:00Z"),
    Qualifier("error", "TimeoutError"),
    Qualifier("consumer", "posts"),
    Qualifier("schedule", "nightly"),
    Qualifier("batch", "run_…"),
)

#: Runs that are counted, and the milliseconds after which no more are counted, and looked through.
MOST_COUNTED = 10_000
COUNT_MS = 25
LOOK_MS = 50

#: Runs that are counted when it is asked for, and the milliseconds that it may take.
MOST_EXACT = 100_000_000
EXACT_MS = 10_000

_counting = asyncio.Semaphore(1)

#: Runs on a page, and other runs of a row.
PAGE_RUNS = 50
MOST_OTHERS = 10

#: Lines of a log that a page shows, the last ones, their characters together, and attempts that
#: failed, with their errors.
MOST_LINES = 1_000
MOST_LINE_CHARS = 200_000
MOST_FAILURES = 10


async def show_runs(asked: Asked) -> Answer:
    """Show the newest runs that fit, without payloads."""
    known = {"task": sorted(task.name for task in asked.call.tasks)}
    search = Search.of(asked, QUALIFIERS, known, free="text")
    paging = {name: asked.query[name] for name in PAGING if name in asked.query}
    wanted = WantedPage.model_validate({"limit": PAGE_RUNS, **paging})
    problem, found, count = search.problem, FoundRuns(), ""
    if problem is None:
        try:
            wanted = WantedPage.model_validate({**wanted.model_dump(), **fields_of(search.given)})
        except (ValidationError, ConfigurationError) as error:
            problem = problem_of(error)
        else:
            found, count = await _found(asked, wanted)
    values = {
        "runs": found.runs,
        "back_to": found.back_to,
        "count": count,
        "count_link": asked.link("runs", "count", **search.query) if count.endswith("+") else None,
        "search": search,
        "verbs": verbs_of_runs(search.given),
        "problem": problem,
        "first": asked.link("runs", **search.query) if wanted.cursor else None,
        "next": asked.link("runs", **search.query, cursor=found.after) if found.after else None,
    }
    return Shown("runs.html", "Runs", values, 200 if problem is None else 422)


async def show_count(asked: Asked) -> Answer:
    """Say how many runs fit, exactly: it may take longer than a list may."""
    search = Search.of(asked, QUALIFIERS, free="text")
    problem, count = search.problem, None
    if problem is None:
        try:
            wanted = wanted_runs(search.given)
            # One at a time: counts hold up neither pages nor each other.
            async with _counting, asked.call.state() as state:
                count = await count_of(state, wanted, MOST_EXACT, within_ms=EXACT_MS)
        except TriggerkitError as error:
            problem = str(error)
    values = {"count": count, "problem": problem, "search": search}
    return Shown("runs_count.html", "Runs counted", values, 200 if problem is None else 422, False)


async def show_run(asked: Asked) -> Answer:
    """Show one run whole, and the way of the row that caused it."""
    async with asked.call.state() as state, Together(state) as reads:
        run, place = await asyncio.gather(
            run_of(reads, asked.path("id")), _place(reads, asked.path("id"))
        )
    change, gone = await _change(asked, run, place)
    bars = _bars(run) if change is None else joined(change)
    lines = [entry for entry in run.spans if entry.kind == "log"]
    failures = [one for one in reversed(run.attempts) if one.error is not None]
    shown = _last(lines)
    others = await _others(asked, run)
    values = {
        "run": run,
        "is_over": run.status in FINAL,
        "waterfall": draw(bars, datetime.now(UTC)),
        "change": change,
        "columns": [] if change is None else columns_of(change),
        "knows_old": change is None or knows_old_values(change),
        "gone": gone,
        "failures": [
            (attempt, own_places(attempt.error.traceback if attempt.error else ""))
            for attempt in failures[:MOST_FAILURES]
        ],
        "failures_left_out": max(0, len(failures) - MOST_FAILURES),
        "lines": shown,
        "lines_left_out": len(lines) - len(shown),
        "more_lines": len(run.spans) >= MOST_SPANS,
        "others": others,
        "key": (run.source or {}).get("key"),
    }
    return Shown("run.html", f"{run.task} {run.id}", values)


def wanted_runs(given: Mapping[str, str]) -> RunFilter:
    """Return the runs that qualifiers say.

    Raises:
        ConfigurationError: one has a value that it cannot have.
    """
    try:
        return Wanted.model_validate(fields_of(given)).filter()
    except ValidationError as error:
        raise ConfigurationError(problem_of(error)) from None


def problem_of(error: ValidationError | ConfigurationError) -> str:
    """Return what is wrong with a filter."""
    if isinstance(error, ConfigurationError):
        return str(error)
    return "; ".join(f"{one['loc'][0]}: it has no such value" for one in error.errors())


def _last(lines: Sequence[RunSpan]) -> Sequence[RunSpan]:
    """Return the last lines, as many as a page has room for; one is cut where it is long."""
    left, first = MOST_LINE_CHARS, len(lines)
    while first > max(0, len(lines) - MOST_LINES) and left > 0:
        first -= 1
        left -= min(len(lines[first].name), TEXT_CHARS)
    return lines[first:]


def fields_of(given: Mapping[str, str]) -> dict[str, Any]:
    """Return the qualifiers as a query of the API names them."""
    fields: dict[str, Any] = dict(given)
    for name in ("since", "until"):
        if name in given:
            try:
                fields[name] = moment_of(given[name])
            except ValueError as error:
                raise ConfigurationError(f"{name}: {error}") from None
    if "table" in given:
        fields["table"] = str(TableName.parse(given["table"]))
    elif "key" in given and ":[" not in given["key"]:
        raise ConfigurationError("key: needs table: too, such as table:posts key:17")
    return fields


async def _found(asked: Asked, wanted: WantedPage) -> tuple[FoundRuns, str]:
    """Return a part of the list, and how many runs fit, as far as they can be counted at once."""
    meant = wanted.filter()
    async with asked.call.state() as state:
        found = await search_runs(
            state, meant, limit=wanted.limit, after=wanted.cursor, within_ms=LOOK_MS
        )
        if wanted.cursor is None and found.after is None:
            return found, f"{len(found.runs):,}"
        count, are_all = await count_soon(state, meant, MOST_COUNTED, within_ms=COUNT_MS)
    return found, f"{count:,}" if are_all else f"{max(count, len(found.runs)):,}+"


async def _place(state: Reads, run_id: str) -> tuple[int, int, str] | str:
    """Return where the change is that made a run, or why it is not known."""
    try:
        return await position_of_run(state, run_id)
    except TriggerkitError as error:
        return str(error)


async def _change(
    asked: Asked, run: Run, place: tuple[int, int, str] | str
) -> tuple[Trace | None, str | None]:
    """Return the change that made a run; else why it is not shown, where there was one."""
    if (run.source or {}).get("position") is None:
        return None, None
    if isinstance(place, str):
        return None, place
    try:
        found = await trace(asked.call.client.pool, *place, run_id=run.id)
    except TriggerkitError as error:
        return None, str(error)
    return found, None


def _bars(run: Run) -> Sequence[Bar]:
    dumped = run.model_dump(include=set(RunWay._fields))
    accepted = Bar("accepted", run.created_at, run.created_at, run.task, "event", run.id)
    return [accepted, *steps_of_run(RunWay(**dumped))]


async def _others(asked: Asked, run: Run) -> FoundRuns:
    """Return other runs of the same row, newest first, as far as they are found at once."""
    key = (run.source or {}).get("key")
    if key is None:
        return FoundRuns()
    async with asked.call.state() as state:
        found = await search_runs(
            state, RunFilter(key=key), limit=MOST_OTHERS + 1, within_ms=LOOK_MS
        )
    others = [other for other in found.runs if other["id"] != run.id]
    return replace(found, runs=others[:MOST_OTHERS])


ROUTES = (
    Route("/runs", show_runs),
    Route("/runs/count", show_count),
    Route("/runs/{id}", show_run),
)
