"""The pages of runs: the list, one run with its way, and what can be done to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

from triggerkit.consumers.trace.changes import Trace, position_of_run, trace
from triggerkit.consumers.trace.way import Bar, RunWay, steps_of_run
from triggerkit.errors import TriggerkitError
from triggerkit.runs.admin.browse import list_runs
from triggerkit.runs.admin.control import cancel_run
from triggerkit.runs.admin.error_groups import own_places
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.run import FINAL, Status
from triggerkit.tasks.replay import Replayer
from triggerkit.web.api.run_models import Run, WantedPage
from triggerkit.web.api.runs import list_all_runs, show_one_run
from triggerkit.web.dashboard.page import ACTOR, Answer, Asked, Moved, Shown
from triggerkit.web.dashboard.waterfall import draw, joined

#: The fields of the filter that have a box of their own; the others stay in the URL.
FIELDS = ("status", "task", "tag", "table", "key")

#: Runs on a page, and other runs of a row; and the seconds in which these are found.
PAGE_RUNS = 50
MOST_OTHERS = 10
OTHERS_S = 1.0

#: Lines of a log that a page shows, the last ones.
MOST_LINES = 1_000


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a row, before and after the change."""

    name: str
    before: Any
    after: Any
    changed: bool


async def show_runs(asked: Asked) -> Answer:
    """Show the newest runs that fit, without payloads."""
    given = {"limit": str(PAGE_RUNS), **asked.query}
    wanted = WantedPage.model_validate(given)
    found = await list_all_runs(asked.call, wanted)
    kept = {name: value for name, value in asked.query.items() if name not in ("cursor", "limit")}
    values = {
        "runs": found.data,
        "wanted": kept,
        "hidden": {name: value for name, value in kept.items() if name not in FIELDS},
        "statuses": get_args(Status),
        "first": asked.link("runs", **kept) if wanted.cursor else None,
        "next": asked.link("runs", **kept, cursor=found.next) if found.next else None,
    }
    return Shown("runs.html", "Runs", values)


async def show_run(asked: Asked) -> Answer:
    """Show one run whole, and the way of the row that caused it."""
    run = await show_one_run(asked.call, asked.path("id"))
    change, gone = await _change(asked, run)
    bars = _bars(run) if change is None else joined(change)
    lines = [entry for entry in run.spans if entry.kind == "log"]
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
            (attempt, own_places(attempt.error.traceback))
            for attempt in reversed(run.attempts)
            if attempt.error is not None
        ],
        "lines": lines[-MOST_LINES:],
        "lines_left_out": max(0, len(lines) - MOST_LINES),
        "others": others,
        "key": (run.source or {}).get("key"),
    }
    return Shown("run.html", f"{run.task} {run.id}", values)


async def replay_run(asked: Asked) -> Answer:
    """Make a new run with the same payload, and show it."""
    tasks = {task.name: task for task in asked.call.tasks}
    handle = await Replayer(asked.call.client, tasks, ACTOR).replay(asked.path("id"))
    return Moved(asked.link("runs", handle.id))


async def stop_run(asked: Asked) -> Answer:
    """Cancel a run that has not ended."""
    await cancel_run(asked.call.client, asked.path("id"), ACTOR)
    return Moved(asked.link("runs", asked.path("id")))


def columns_of(change: Trace) -> list[Column]:
    """Return the row's columns before and after its change, those that changed first; of an update
    whose old values are not known, only after it."""
    after, old = change.record or {}, change.changes or {}
    found = []
    for name in {**after, **old}:
        new = after.get(name)
        if change.action in ("insert", "read"):
            found.append(Column(name, None, new, changed=True))
        elif not knows_old_values(change):
            found.append(Column(name, None, new, changed=False))
        elif change.action == "delete":
            found.append(Column(name, new, None, changed=True))
        else:
            found.append(Column(name, old.get(name, new), new, changed=name in old))
    return sorted(found, key=lambda column: not column.changed)


def knows_old_values(change: Trace) -> bool:
    """Return whether the log has what an update changed: it has not where the WAL has not."""
    return change.action != "update" or change.changes != {}


async def _change(asked: Asked, run: Run) -> tuple[Trace | None, str | None]:
    """Return the change that made a run; else why it is not shown, where there was one."""
    if (run.source or {}).get("position") is None:
        return None, None
    try:
        async with asked.call.state() as state:
            database_id, position, consumer = await position_of_run(state, run.id)
        found = await trace(asked.call.client.pool, database_id, position, consumer, run_id=run.id)
    except TriggerkitError as error:
        return None, str(error)
    return found, None


def _bars(run: Run) -> Sequence[Bar]:
    dumped = run.model_dump(include=set(RunWay._fields))
    accepted = Bar("accepted", run.created_at, run.created_at, run.task, "event", run.id)
    return [accepted, *steps_of_run(RunWay(**dumped))]


async def _others(asked: Asked, run: Run) -> list[dict[str, Any]] | None:
    """Return other runs of the same row, newest first; None where they take too long to find."""
    key = (run.source or {}).get("key")
    if key is None:
        return []
    try:
        async with asyncio.timeout(OTHERS_S), asked.call.state() as state:
            found, _ = await list_runs(state, RunFilter(key=key), limit=MOST_OTHERS + 1)
    except TimeoutError:
        return None
    return [other for other in found if other["id"] != run.id][:MOST_OTHERS]
