"""What is wrong behind the endpoint: runs that fail, queues that stand still, schedules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from triggerkit.runs.admin.error_groups import GROUP, MOST_TRACEBACKS, SameErrors, same_errors
from triggerkit.runs.admin.queues import QueueInfo, list_queues
from triggerkit.runs.keys import READY
from triggerkit.runs.run import first_run_id_at
from triggerkit.state.reading import Reads, rows_of

#: Runs that are looked at of each status, the newest ones, and for how many hours back.
MOST_RUNS = 500
HOURS = 24

#: Characters of an error's message.
MESSAGE_CHARS = 200

#: The replays of a run `r`. An index of what refers to a run is in the database's order, ids are in
#: that of their bytes: as they are, each look would go through all replays.
_REPLAYS = 'SELECT FROM triggerkit.runs n WHERE n.replay_of = r.id COLLATE "default"'

#: What failed and was not replayed since, and what is tried again after an error. What waits for
#: an API of its own accord is told elsewhere.
_FAILING = GROUP.format(
    most=MOST_TRACEBACKS,
    those="true",
    runs=" UNION ALL ".join(
        f"""(SELECT r.id, r.task, r.status, coalesce(r.finished_at, r.started_at) AS at,
        r.scheduled_at AS next_at, r.error
    FROM triggerkit.runs r WHERE r.status = '{status}' AND r.id >= %(since)s
        AND r.error IS NOT NULL AND {but} ORDER BY {order} DESC LIMIT {MOST_RUNS})"""  # noqa: S608
        for status, but, order in (
            *(
                (ended, f"NOT EXISTS ({_REPLAYS})", "r.id")
                for ended in ("failed", "crashed", "timed_out")
            ),
            # Found by an index of those that wait, and sorted: in order all runs would be read.
            ("retrying", "r.waits = 0", "r.id || ''"),
        )
    ),
)

#: The tasks that have ready runs, and since when: by steps through the index.
_READY_TASKS = f"""
WITH RECURSIVE waiting AS (
    (SELECT r.task, r.queue, r.rank + r.priority * 1000000::bigint AS queued, r.id
     FROM triggerkit.runs r WHERE {READY} ORDER BY r.task, r.rank LIMIT 1)
    UNION ALL
    SELECT next.* FROM waiting, LATERAL (
        SELECT r.task, r.queue, r.rank + r.priority * 1000000::bigint, r.id
        FROM triggerkit.runs r WHERE {READY} AND r.task > waiting.task
        ORDER BY r.task, r.rank LIMIT 1) AS next)
SELECT task, queue, to_timestamp(queued / 1000000.0), id FROM waiting
"""  # noqa: S608 - of constants

#: Schedules whose last run ended without success, and was not replayed since.
_SCHEDULES = f"""
SELECT s.name, s.task, r.id, r.status, r.finished_at,
    concat_ws(': ', r.error ->> 'type', left(split_part(r.error ->> 'message', E'\\n', 1), 200))
FROM triggerkit.schedules s JOIN triggerkit.runs r ON r.id = s.last_run
WHERE r.status IN ('failed', 'crashed', 'timed_out', 'expired')
  AND NOT EXISTS ({_REPLAYS})
ORDER BY s.name
"""  # noqa: S608 - of constants


@dataclass(frozen=True, slots=True)
class FailingTask:
    """Runs of a task that fail by one type of error at one place. `error` is the newest one's, of
    the run `run`. `failed` ended so, `retrying` are tried again, the next at `next_at`."""

    task: str
    type: str
    error: str
    place: str | None
    run: str
    failed: int
    retrying: int
    since: datetime
    last_at: datetime
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class StandingTask:
    """A task whose run `run` is ready since `since`."""

    task: str
    queue: str
    since: datetime
    run: str


@dataclass(frozen=True, slots=True)
class FailedSchedule:
    """A schedule whose last run ended without success."""

    name: str
    task: str
    run: str
    status: str
    at: datetime
    error: str


@dataclass(frozen=True, slots=True)
class RunHealth:
    """What is wrong with runs, and how full the queues are."""

    failing: Sequence[FailingTask]
    queues: Sequence[QueueInfo]
    ready: Sequence[StandingTask]
    schedules: Sequence[FailedSchedule]


async def run_health(connection: Reads) -> RunHealth:
    """Return what is wrong with runs of the last day; a few indexed looks."""
    failing, queues, ready, schedules = await asyncio.gather(
        _failing(connection),
        list_queues(connection),
        rows_of(connection, _READY_TASKS),
        rows_of(connection, _SCHEDULES),
    )
    return RunHealth(
        failing,
        queues,
        [StandingTask(*row) for row in ready],
        [FailedSchedule(*row) for row in schedules],
    )


async def _failing(connection: Reads) -> list[FailingTask]:
    since = first_run_id_at(time.time() - HOURS * 3600)
    groups: dict[tuple[str, str, str | None], list[SameErrors]] = {}
    for one in await same_errors(connection, _FAILING, {"since": since}):
        groups.setdefault((one.task, one.type, one.place), []).append(one)
    found = [_group(*key, errors) for key, errors in groups.items()]
    return sorted(found, key=lambda group: group.last_at, reverse=True)


def _group(task: str, kind: str, place: str | None, errors: list[SameErrors]) -> FailingTask:
    last = max(errors, key=lambda one: one.last_at)
    message = last.message.partition("\n")[0][:MESSAGE_CHARS]
    retrying = [one for one in errors if one.is_retrying]
    return FailingTask(
        task=task,
        type=kind,
        error=f"{kind}: {message}" if message else kind,
        place=place,
        run=last.run,
        failed=sum(one.count for one in errors if not one.is_retrying),
        retrying=sum(one.count for one in retrying),
        since=min(one.first_at for one in errors),
        last_at=last.last_at,
        next_at=min((one.next_at for one in retrying if one.next_at is not None), default=None),
    )
