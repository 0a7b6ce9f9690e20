"""Schedules: runs made by the clock, exactly one for each tick.

A schedule's row holds its next tick. The transaction that makes that tick's run moves the row on in
the same transaction, so that several processes, or one that dies, make none twice and none too few.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import islice
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
import psycopg
from cronsim import CronSim, CronSimError
from psycopg.rows import class_row

from triggerkit.errors import ConfigurationError
from triggerkit.runs.accept.insert import INSERT_ONCE, Inserted, insert_parameters
from triggerkit.runs.run import NewRun, ReadyRun, RunOptions
from triggerkit.runs.transitions import admit

logger = logging.getLogger(__name__)

#: A tick that is later than so many seconds was missed: no process was there to see it.
MISSED_S = 60.0

#: Most ticks of one schedule that are caught up at once; the others at the next look.
MOST_TICKS = 100

#: More than clocks are set back by at once.
MOST_SET_BACK = timedelta(hours=3)

#: The names that crons know for some expressions.
NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_COLUMNS = """
SELECT name, task, queue, max_attempts, cron, timezone, catch_up, ttl_s, priority, next_at, last_at,
    external_id, clock_timestamp() AS now
FROM triggerkit.schedules
"""

_FIND = f"{_COLUMNS} WHERE name = %s"

_DUE = f"""{_COLUMNS}
WHERE next_at <= statement_timestamp() AND paused_at IS NULL AND name <> ALL (%s)
ORDER BY next_at LIMIT 100 FOR UPDATE SKIP LOCKED
"""

_MOVE = """
UPDATE triggerkit.schedules SET next_at = %s, last_at = coalesce(%s, last_at),
    last_run = coalesce(%s, last_run)
WHERE name = %s
"""


@dataclass(frozen=True, slots=True)
class Cron:
    """A schedule: a cron expression of five fields, in a time zone;
    of six fields, the first one says the second. `@daily` and its kin are understood.

    Where the clocks change, an expression whose hour begins with `*` ticks with the time that
    passes: in a repeated hour again, in a missing one not at all. Any other ticks once for each
    time of the clock: the first time that it comes, or right after the missing hour.

    Ticks that nobody saw, since no worker was running, are skipped, or made up for when `catch_up`
    is set. Raises ConfigurationError when the expression or the zone is not understood.
    """

    expression: str
    timezone: str = "UTC"
    catch_up: bool = False

    def __post_init__(self) -> None:
        try:
            self._simulation(datetime.now(ZoneInfo(self.timezone)))
        except CronSimError as error:
            raise ConfigurationError(
                f"{self.expression!r} is not a cron expression ({error}); an example is "
                "'30 6 * * 1-5': at half past six, Monday to Friday"
            ) from error
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigurationError(
                f"there is no time zone {self.timezone!r}; an example is 'Europe/Berlin'"
            ) from error

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the ticks after `moment`, in UTC and in order, each once."""
        last, zone = moment, ZoneInfo(self.timezone)
        ticks = self._with_time if self._hour().startswith("*") else self._by_clock
        for tick in ticks(moment, zone):
            # What was set back to the hour's first time, or moved behind a missing one, is over.
            if tick > last:
                last = tick
                yield tick

    def _by_clock(self, moment: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        local = moment.astimezone(zone).replace(tzinfo=None)
        for shown in self._simulation(local):
            yield _instant(shown, zone)

    def _with_time(self, moment: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """Yield all moments at which the clocks show a time, of a repeated one both."""
        local, later = moment.astimezone(zone), (moment + MOST_SET_BACK).astimezone(zone)
        set_back = max(timedelta(0), _offset(local) - _offset(later))
        again: list[datetime] = []
        for shown in self._simulation(local.replace(tzinfo=None) - set_back):
            first, second = (_shown_at(shown, zone, fold) for fold in (0, 1))
            if first is None:
                continue
            while again and again[0] < first:
                yield heappop(again)
            yield first
            if second is not None and second > first:
                heappush(again, second)

    def _simulation(self, moment: datetime) -> CronSim:
        return CronSim(self._fields(), moment)

    def _fields(self) -> str:
        return NAMED.get(self.expression.strip().lower(), self.expression)

    def _hour(self) -> str:
        return self._fields().split()[-4]


def _offset(moment: datetime) -> timedelta:
    offset = moment.utcoffset()
    assert offset is not None
    return offset


def _shown_at(shown: datetime, zone: ZoneInfo, fold: int) -> datetime | None:
    """Return when the clocks of `zone` show a time, the first or second time; None if never."""
    instant = shown.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    return instant if instant.astimezone(zone).replace(tzinfo=None) == shown else None


def _instant(time_of_clock: datetime, zone: ZoneInfo) -> datetime:
    """Return when the clocks of `zone` first show a time, or right after the hour that misses
    it."""
    shown = time_of_clock
    while (instant := _shown_at(shown, zone, 0)) is None:
        shown = shown.replace(second=0) + timedelta(minutes=1)
    return instant


@dataclass(frozen=True, slots=True)
class Tick:
    """The payload of a scheduled task that takes a parameter: the tick that its run is for, and
    whom a schedule that a client made is for."""

    schedule: str
    at: datetime
    last_at: datetime | None = None
    external_id: str | None = None


class _Due(NamedTuple):
    name: str
    task: str
    queue: str
    max_attempts: int
    cron: str
    timezone: str
    catch_up: bool
    ttl_s: float | None
    priority: int
    next_at: datetime
    last_at: datetime | None
    external_id: str | None
    now: datetime


@dataclass(slots=True)
class DueSchedules:
    """Makes the runs of the ticks that are due.

    A schedule that cannot be read here, as when this machine does not know its zone, is told of and
    looked at again a minute later. Its tick stays: another machine may be able to.
    """

    #: Until when what cannot be read is left alone (monotonic seconds).
    _unreadable: dict[str, float] = field(default_factory=dict, init=False)

    def make_due_runs(self, connection: psycopg.Connection) -> list[ReadyRun]:
        """Make the runs, and return those that are to be pushed."""
        now = time.monotonic()
        self._unreadable = {n: until for n, until in self._unreadable.items() if until > now}
        inserted = Inserted()
        with connection.transaction():
            with connection.cursor(row_factory=class_row(_Due)) as cursor:
                due = cursor.execute(_DUE, [list(self._unreadable)]).fetchall()
            for schedule in due:
                try:
                    runs, next_at = _runs(schedule)
                except ConfigurationError as error:
                    logger.error("the schedule %s creates no runs: %s", schedule.name, error)
                    self._unreadable[schedule.name] = now + MISSED_S
                    continue
                _make(connection, schedule, runs, next_at, inserted)
        return inserted.ready + admit(connection, inserted.gates)


def _make(
    connection: psycopg.Connection,
    schedule: _Due,
    runs: Sequence[NewRun],
    next_at: datetime,
    inserted: Inserted,
) -> None:
    if runs:
        made = connection.execute(INSERT_ONCE, insert_parameters(runs)).fetchall()
        inserted.add(made, [])
    last = runs[-1] if runs else None
    last_at = None if last is None else (last.source or {})["tick"]
    connection.execute(_MOVE, [next_at, last_at, None if last is None else last.id, schedule.name])


async def run_beside(connection: psycopg.AsyncConnection, name: str) -> NewRun | None:
    """Return a run of a schedule beside its ticks, to be accepted. None: there is no such
    schedule."""
    async with connection.cursor(row_factory=class_row(_Due)) as cursor:
        found = await (await cursor.execute(_FIND, [name])).fetchone()
    return None if found is None else _run(found, found.now, found.last_at, key=None)


def _runs(schedule: _Due) -> tuple[list[NewRun], datetime]:
    """Return the runs that are due, and the tick to wait for after them."""
    cron = Cron(schedule.cron, schedule.timezone)
    in_time = schedule.now - timedelta(seconds=MISSED_S)
    ticks, after = [schedule.next_at], schedule.next_at
    if not schedule.catch_up and schedule.next_at < in_time:
        # However many were missed: they are skipped unseen.
        logger.warning(
            "the schedule %s missed and skips its ticks since %s",
            schedule.name,
            schedule.next_at.isoformat(),
        )
        ticks, after = [], in_time
    next_at = after
    for next_at in islice(cron.after(after), MOST_TICKS):
        if next_at > schedule.now:
            break
        ticks.append(next_at)
    else:
        # The last of so many is the first of the next look.
        ticks.pop()
    before = [schedule.last_at, *ticks]
    return [
        _run(schedule, tick, last, key=key_of_tick(schedule.name, tick))
        for last, tick in zip(before, ticks, strict=False)
    ], next_at


def _run(schedule: _Due, tick: datetime, last_at: datetime | None, *, key: str | None) -> NewRun:
    run = NewRun(
        task=schedule.task,
        queue=schedule.queue,
        max_attempts=schedule.max_attempts,
        payload=b"null",
        idempotency_key=key,
        options=RunOptions(priority_s=schedule.priority, ttl_s=schedule.ttl_s),
    )
    return for_tick(run, Tick(schedule.name, tick, last_at, schedule.external_id))


def for_tick(run: NewRun, tick: Tick) -> NewRun:
    """`run` with what a scheduled run carries."""
    source = {"schedule": tick.schedule, "tick": tick.at.isoformat()}
    payload: dict[str, object] = {
        "schedule": tick.schedule,
        "at": tick.at,
        "last_at": tick.last_at,
    }
    if tick.external_id is not None:
        payload["external_id"] = tick.external_id
    return replace(run, payload=orjson.dumps(payload), source=source)


def key_of_tick(schedule: str, at: datetime) -> str:
    """Return the idempotency key of a tick's run: there is one for each tick."""
    return f"schedule/{schedule}/{at.isoformat()}"
