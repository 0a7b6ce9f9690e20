"""Why a run has no effect yet: it waits, executes, or ended without success."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, cast

import psycopg

from triggerkit.consumers.trace.runs import position_of_run
from triggerkit.errors import TriggerkitError, UnknownRun
from triggerkit.runs.admin.browse import explained
from triggerkit.runs.admin.error_groups import place_of
from triggerkit.runs.admin.reasons import Reason
from triggerkit.state.reading import Reads, Together, rows_of
from triggerkit.state.short_key import short_key
from triggerkit.why.answer import Cause, Code

#: Characters of an error's message in a sentence.
ERROR_CHARS = 200

#: Runs of one row that are looked at, the newest ones.
MOST_RUNS = 20

_ENDED: Final[dict[str, str]] = {
    "failed": "failed after",
    "crashed": "ended since its worker died, after",
    "timed_out": "took longer than its max_duration, after",
    "canceled": "was canceled, after",
    "expired": "expired before a worker was free (ttl), after",
}

#: What became of runs: the runs of single items of a row that failed in a batch, by the indexes of
#: what is unfinished and of what ended without success, since one that succeeded later needs
#: nobody; and replays of any of them. OFFSET keeps what is inside from being found by going through
#: the ids of all runs.
_OF_ROW = """
WITH RECURSIVE made (id) AS (
    SELECT unnest(%(ids)s::text[]) COLLATE "C"
    UNION ALL
    (SELECT i.id FROM (
        SELECT r.id FROM triggerkit.runs r
        WHERE r.task = ANY (%(tasks)s) AND r.item_key = %(item)s AND r.finished_at IS NULL
        OFFSET 0) i
     ORDER BY i.id DESC LIMIT %(most)s)
    UNION ALL
    (SELECT i.id FROM (
        SELECT r.id FROM triggerkit.runs r
        WHERE r.status IN ('failed', 'crashed', 'canceled', 'expired', 'timed_out')
          AND r.id > %(first)s AND r.item_key = %(item)s AND r.source ->> 'batch' = ANY (%(ids)s)
        OFFSET 0) i
     ORDER BY i.id DESC LIMIT %(most)s)
), replays (id) AS (
    SELECT id FROM made
    UNION
    SELECT r.id FROM replays CROSS JOIN LATERAL (
        SELECT n.id FROM triggerkit.runs n
        WHERE n.replay_of = replays.id COLLATE "default" LIMIT %(most)s) r)
SELECT id FROM replays ORDER BY id DESC LIMIT %(most)s
"""

_RUN = "SELECT task, source FROM triggerkit.runs WHERE id = %s"

#: A run, and why it is not running.
Explained = tuple[Mapping[str, Any], Reason | None]


async def origin_of_run(
    state: psycopg.AsyncConnection, run_id: str
) -> tuple[str, Mapping[str, Any], tuple[int, int, str] | None]:
    """Return a run's task, its source, and where the change is that made it, None without one.

    Raises:
        UnknownRun: there is none of this id.
    """
    async with Together(state) as reads:
        known, place = await asyncio.gather(rows_of(reads, _RUN, [run_id]), _place(reads, run_id))
    if not known:
        raise UnknownRun(f"no run has the id {run_id!r}; see `triggerkit runs list`")
    task, source = known[0]
    return task, source or {}, place


async def _place(state: Reads, run_id: str) -> tuple[int, int, str] | None:
    with suppress(TriggerkitError):
        return await position_of_run(state, run_id)
    return None


async def runs_of_row(
    connection: psycopg.AsyncConnection, made: Mapping[str, str], row_key: str | None
) -> list[Explained]:
    """Return what became of the runs that a change made, tasks by ids: they, the runs of their
    failed items of one row, and replays. The one that says how it stands is the first."""
    if not made:
        return []
    wanted = {
        "ids": list(made),
        "tasks": sorted(set(made.values())),
        "item": None if row_key is None else short_key(row_key),
        "first": min(made),
        "most": MOST_RUNS,
    }
    known = await rows_of(connection, _OF_ROW, wanted)
    found = await explained(connection, sorted(run_id for (run_id,) in known))
    return sorted(
        found, key=lambda one: (one[0]["finished_at"] is None, one[0]["id"]), reverse=True
    )


async def cause_of_run(connection: psycopg.AsyncConnection, found: Explained) -> Cause:
    """Return why a run has no effect, or that it is done."""
    run, reason = found
    if reason is not None:
        return await _of_waiting(connection, run, reason)
    name = _name(run)
    if run["status"] == "completed":
        return Cause("completed", f"{name} completed at {when(run['finished_at'])}")
    if run["status"] == "executing":
        return Cause(
            "executing",
            f"{name} executes since {when(run['started_at'])}, attempt {run['attempt']} of "
            f"{run['max_attempts']}",
        )
    error, place = error_of(run)
    ended = f"{name} {_ENDED[run['status']]} {counted(run['attempt'], 'attempt')}"
    if error:
        ended += f": {error}"
    remedy = f"triggerkit runs replay {run['id']}"
    if place:
        ended += f", at {place}"
        remedy += f"  # once {place.partition(' in ')[0]} is mended"
    return Cause(cast("Code", run["status"]), ended, remedy)


async def _of_waiting(
    connection: psycopg.AsyncConnection, run: Mapping[str, Any], reason: Reason
) -> Cause:
    error, place = error_of(run)
    conclusion, remedy = f"{_name(run)}: {reason.cause}", reason.remedy
    if reason.code == "retrying" and error:
        conclusion += f" because {error}" + (f", at {place}" if place else "")
    if reason.held is not None:
        [(holder, of_holder)] = await explained(connection, [reason.held])
        if of_holder is not None:
            conclusion += f"; that one: {of_holder.cause}"
            held_error, _ = error_of(holder)
            if of_holder.code == "retrying" and held_error:
                conclusion += f" because {held_error}"
            remedy = of_holder.remedy
        remedy = remedy if remedy and " show " not in remedy else (
            f"triggerkit runs cancel {reason.held}  # gives that one up; then this one goes on"
        )  # fmt: skip
    return Cause(cast("Code", reason.code), conclusion, remedy)


def error_of(run: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return a run's last error in one line, empty without one, and its place in the project."""
    error = run["error"]
    if not error:
        return "", None
    lines = str(error.get("message") or "").strip().splitlines() or [""]
    message = lines[0] if len(lines[0]) <= ERROR_CHARS else f"{lines[0][:ERROR_CHARS]}…"
    text = f"{error.get('type')}: {message}" if message else str(error.get("type"))
    return text, place_of(str(error.get("traceback") or ""))


def _name(run: Mapping[str, Any]) -> str:
    items = run["items"] or 0
    batch = f", a batch of {items} changes" if items > 1 else ""
    return f"{run['id']} ({run['task']}{batch})"


def when(moment: datetime | None) -> str:
    """Return a time in a sentence."""
    return "an unknown time" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def counted(count: int, noun: str) -> str:
    """Return a number of things: `1 attempt`, `2 attempts`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def tasks_of(runs: Sequence[Any]) -> dict[str, str]:
    """Return the tasks of runs by their ids."""
    return {run.id: run.task for run in runs}
