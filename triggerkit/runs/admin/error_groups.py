"""The errors of runs that ended without success, grouped by type and place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from triggerkit.runs.run import first_run_id_at
from triggerkit.state.reading import Reads, rows_of

#: Milliseconds in which the runs of one task are sought among others.
LOOK_MS = 40

#: Runs looked at, the newest of each status; tracebacks that are read of them; and characters of
#: their ends.
MOST_RUNS = 1_500
MOST_TRACEBACKS = 1_000
TRACEBACK_CHARS = 4_000

_FRAME = re.compile(r'^\s*File "(?P<file>[^"\n]+)", line (?P<line>\d+), in (?P<function>.+)$', re.M)

#: What is in files of these is not the project's own.
_FOREIGN = re.compile(r"site-packages/|dist-packages/|/lib/python\d|^<frozen ")

#: Of `runs`, those of one traceback, whose last line has the message, which differs. The whole
#: error is unpacked once for each run.
GROUP = """
SELECT g.task, g.type, g.status = 'retrying', count(*)::int, min(g.at), max(g.at), min(g.next_at),
    (array_agg(g.id ORDER BY g.at DESC))[1], g.frames
FROM (
    SELECT f.id, f.task, f.status, f.at, f.next_at, coalesce(e.type, '') AS type,
        md5(left(e.traceback, -2 - length(coalesce(e.message, '')))) AS frames
    FROM ({runs}) f
    CROSS JOIN LATERAL jsonb_to_record(f.error) e (type text, message text, traceback text)
    WHERE {those}) g
GROUP BY g.task, g.type, g.status = 'retrying', g.frames
ORDER BY max(g.at) DESC LIMIT {most}
"""

#: Where those of one task are sought for long, what comes next is taken, and left out then.
_LOOK = GROUP.format(
    most=MOST_TRACEBACKS,
    those="%(task)s::text IS NULL OR f.task = %(task)s",
    runs=" UNION ALL ".join(
        f"""(SELECT id, task, status, finished_at AS at, NULL::timestamptz AS next_at, error
        FROM triggerkit.runs WHERE status = '{status}' AND id >= %(since)s AND error IS NOT NULL
        AND (%(task)s::text IS NULL OR task = %(task)s
            OR clock_timestamp() > statement_timestamp() + interval '{LOOK_MS} ms')
        ORDER BY id DESC LIMIT {MOST_RUNS})"""  # noqa: S608
        for status in ("failed", "crashed", "timed_out")
    ),
)

_ERRORS = f"""
SELECT r.id, coalesce(e.message, ''),
    CASE WHEN r.id = ANY (%s) THEN right(e.traceback, {TRACEBACK_CHARS}) END
FROM triggerkit.runs r
CROSS JOIN LATERAL jsonb_to_record(r.error) e (message text, traceback text) WHERE r.id = ANY (%s)
"""  # noqa: S608 - of constants


@dataclass(frozen=True, slots=True)
class SameErrors:
    """Runs of one task whose tracebacks are the same; `message` and `run` are the last one's. Those
    that are tried again are apart from those that ended."""

    task: str
    type: str
    place: str | None
    is_retrying: bool
    count: int
    first_at: datetime
    last_at: datetime
    next_at: datetime | None
    run: str
    message: str


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
    connection: Reads, *, since: datetime | None = None, task: str | None = None
) -> list[ErrorGroup]:
    """Return the groups, those with most runs first; of runs accepted after `since`, the newest
    1,500 of each status, as far back as those of a task are found at once."""
    first = first_run_id_at(0.0 if since is None else since.timestamp())
    groups: dict[tuple[str, str | None], ErrorGroup] = {}
    for one in await same_errors(connection, _LOOK, {"since": first, "task": task}):
        known = groups.get((one.type, one.place))
        if known is None:
            known = ErrorGroup(
                one.type, one.place, one.message, 0, one.first_at, one.last_at, one.run
            )
            groups[one.type, one.place] = known
        known.count += one.count
        known.first_at = min(known.first_at, one.first_at)
        if one.last_at > known.last_at:
            known.last_at, known.run_id, known.message = one.last_at, one.run, one.message
        known.tasks = sorted({*known.tasks, one.task})
    return sorted(groups.values(), key=lambda group: (-group.count, group.type, group.place or ""))


async def same_errors(
    connection: Reads, query: str, parameters: Mapping[str, Any]
) -> list[SameErrors]:
    """Return what a query of `GROUP` finds, with their places."""
    rows = await rows_of(connection, query, parameters)
    if not rows:
        return []
    # Many tasks fail at the same place: its traceback is read once.
    of_frames = {frames: run_id for *_, run_id, frames in rows}
    last = [run_id for *_, run_id, _ in rows]
    errors = await rows_of(connection, _ERRORS, [list(of_frames.values()), last])
    messages = {run_id: message for run_id, message, _ in errors}
    places = {run_id: place_of(traceback) for run_id, _, traceback in errors if traceback}
    found = []
    for task, kind, is_retrying, count, first_at, last_at, next_at, run_id, frames in rows:
        message, place = messages.get(run_id, ""), places.get(of_frames[frames])
        times = first_at, last_at, next_at
        found.append(SameErrors(task, kind, place, is_retrying, count, *times, run_id, message))
    return found


def place_of(traceback: str) -> str | None:
    """Return the last frame of the project's own code, else the last one of all."""
    last = None
    for line in reversed(traceback.split("\n")):
        frame = _FRAME.match(line)
        if frame is not None and not _is_foreign(frame):
            return _place(frame)
        last = last or frame
    return None if last is None else _place(last)


def own_places(traceback: str) -> list[str]:
    """Return the frames of the project's own code, where it failed first."""
    frames = [frame for frame in _FRAME.finditer(traceback) if not _is_foreign(frame)]
    return [_place(frame) for frame in reversed(frames)]


def _place(frame: re.Match[str]) -> str:
    return f"{frame['file']}:{frame['line']} in {frame['function']}"


def _is_foreign(frame: re.Match[str]) -> bool:
    return _FOREIGN.search(frame["file"]) is not None
