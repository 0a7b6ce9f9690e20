"""The errors of runs that ended without success, grouped by type and place."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

import psycopg

from triggerkit.runs.run import first_run_id_at

#: Runs looked at, the newest of each status; and characters of a traceback's end.
MOST_RUNS = 5_000
TRACEBACK_CHARS = 4_000

_FRAME = re.compile(r'^\s*File "(?P<file>[^"\n]+)", line (?P<line>\d+), in (?P<function>.+)$', re.M)

#: What is in files of these is not the project's own.
_FOREIGN = re.compile(r"site-packages/|dist-packages/|/lib/python\d|^<frozen ")

_LOOK = " UNION ALL ".join(
    f"""(SELECT id, task, status, finished_at, error ->> 'type', error ->> 'message',
        right(error ->> 'traceback', {TRACEBACK_CHARS})
    FROM triggerkit.runs WHERE status = '{status}' AND id >= %(since)s AND error IS NOT NULL
        AND (%(task)s::text IS NULL OR task = %(task)s) ORDER BY id DESC LIMIT {MOST_RUNS})"""  # noqa: S608
    for status in ("failed", "crashed", "timed_out")
)


@dataclass(slots=True)
class ErrorGroup:
    """Runs that ended by one type of error at one place. `place` is the project's own last frame,
    as `file:line in function`; None where there is none. `message` and `run_id` are the last
    one's."""

    type: str
    place: str | None
    message: str
    count: int
    first_at: datetime
    last_at: datetime
    run_id: str
    tasks: list[str] = field(default_factory=list)


async def group_errors(
    connection: psycopg.AsyncConnection, *, since: datetime | None = None, task: str | None = None
) -> list[ErrorGroup]:
    """Return the groups, those with most runs first; of runs accepted after `since`, the newest
    5,000 of each status."""
    first = first_run_id_at(0.0 if since is None else since.timestamp())
    cursor = await connection.execute(_LOOK, {"since": first, "task": task})
    groups: dict[tuple[str, str | None], ErrorGroup] = {}
    for run_id, of_task, _, at, kind, message, traceback in await cursor.fetchall():
        place = place_of(traceback or "")
        known = groups.get((kind, place))
        if known is None:
            known = ErrorGroup(kind, place, message or "", 0, at, at, run_id)
            groups[kind, place] = known
        known.count += 1
        known.first_at = min(known.first_at, at)
        if at > known.last_at:
            known.last_at, known.run_id, known.message = at, run_id, message or ""
        known.tasks = sorted({*known.tasks, of_task})
    return sorted(groups.values(), key=lambda group: (-group.count, group.type, group.place or ""))


def place_of(traceback: str) -> str | None:
    """Return the last frame of the project's own code, else the last one of all."""
    frames = list(_FRAME.finditer(traceback))
    own = [frame for frame in frames if not _is_foreign(frame)]
    last = next(reversed(own or frames), None)
    return None if last is None else _place(last)


def own_places(traceback: str) -> list[str]:
    """Return the frames of the project's own code, where it failed first."""
    frames = [frame for frame in _FRAME.finditer(traceback) if not _is_foreign(frame)]
    return [_place(frame) for frame in reversed(frames)]


def _place(frame: re.Match[str]) -> str:
    return f"{frame['file']}:{frame['line']} in {frame['function']}"


def _is_foreign(frame: re.Match[str]) -> bool:
    return _FOREIGN.search(frame["file"]) is not None
