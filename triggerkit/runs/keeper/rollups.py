"""Rolling runs up into few rows, for charts.

A step counts the runs that were accepted in it: how many, what became of them, how long they took.
Durations are counted by buckets, each a quarter longer than the one before, so that steps can be
added up: what is read from them is right to a tenth or so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import orjson
import psycopg

from triggerkit.runs.run import first_run_id_at

#: Seconds of the steps, and for how long each is kept.
MINUTE_S, QUARTER_S, HOUR_S = 60, 900, 3600
KEPT = {
    MINUTE_S: timedelta(hours=26),
    QUARTER_S: timedelta(days=7),
    HOUR_S: timedelta(days=7),
}

#: The name that stands for all tasks.
ALL = ""

#: Steps that one look makes at most, and how far back they are made after a rest.
MOST_STEPS = 120
FARTHEST = timedelta(hours=24)

#: Runs of a minute whose durations are looked at.
SAMPLE = 1_000

#: How much longer a bucket is than the one before; the first is a millisecond.
RATIO = 1.25

_LAST = "SELECT max(at) FROM triggerkit.run_rollups WHERE step_s = 60 AND task = ''"

#: Made anew after half as long again as the step is old: less and less often.
_AGAIN = """
SELECT at FROM triggerkit.run_rollups
WHERE open > 0 AND step_s = 60 AND task = '' AND at > %(since)s
  AND clock_timestamp() - rolled_at > (rolled_at - at) / 2
ORDER BY at DESC LIMIT %(most)s
"""

_COUNT = """
SELECT task, count(*)::int, (count(*) FILTER (WHERE status = 'completed'))::int,
    (count(*) FILTER (WHERE status IN ('failed', 'crashed', 'timed_out')))::int,
    (count(*) FILTER (WHERE finished_at IS NULL))::int
FROM triggerkit.runs WHERE id >= %(first)s AND id < %(end)s GROUP BY task
"""

#: The commit is looked for in the log, where it is as long as that keeps it.
_SAMPLE = """
SELECT r.task,
    CASE WHEN r.status = 'completed'
        THEN extract(epoch FROM r.finished_at - coalesce(e.commit_at, r.created_at))::float END,
    CASE WHEN r.attempt = 1 AND r.started_at IS NOT NULL
        THEN extract(epoch FROM r.started_at)::float
            - (r.rank + r.priority * 1000000::bigint) / 1000000.0 END
FROM (
    SELECT * FROM triggerkit.runs
    WHERE id >= %(first)s AND id < %(end)s AND abs(hashtext(id)::bigint) %% %(every)s = 0
) r
LEFT JOIN triggerkit.consumers c ON c.name = r.source ->> 'consumer'
LEFT JOIN LATERAL (
    SELECT v.commit_at FROM triggerkit.events v
    WHERE v.database_id = c.database_id AND v.partition = ANY ('{0,1,2,3,4,5,6,7}'::smallint[])
      AND v.position = (r.source ->> 'position')::bigint LIMIT 1) e ON true
"""

_STORE = """
INSERT INTO triggerkit.run_rollups (step_s, task, at, accepted, completed, failed, open, latencies,
    waits)
SELECT %s, s.task, %s, s.accepted, s.completed, s.failed, s.open, s.latencies::jsonb, s.waits::jsonb
FROM unnest(%s::text[], %s::int[], %s::int[], %s::int[], %s::int[], %s::text[], %s::text[])
    AS s (task, accepted, completed, failed, open, latencies, waits)
ON CONFLICT (step_s, task, at) DO UPDATE SET accepted = excluded.accepted,
    completed = excluded.completed, failed = excluded.failed, open = excluded.open,
    latencies = excluded.latencies, waits = excluded.waits, rolled_at = excluded.rolled_at
"""

_PARTS = """
SELECT task, accepted, completed, failed, open, latencies, waits FROM triggerkit.run_rollups
WHERE step_s = %s AND at >= %s AND at < %s
"""

#: The hours of a time that has quarters alone, as an earlier version made them.
_UNMADE = """
SELECT DISTINCT to_timestamp(floor(extract(epoch FROM q.at) / 3600) * 3600)
FROM triggerkit.run_rollups q WHERE q.step_s = 900 AND q.task = '' AND q.at > %s
  AND NOT EXISTS (SELECT FROM triggerkit.run_rollups WHERE step_s = 3600)
"""

_FORGET = "DELETE FROM triggerkit.run_rollups WHERE step_s = %s AND at < %s"


@dataclass(slots=True)
class Step:
    """What became of the runs that were accepted in a step."""

    accepted: int = 0
    completed: int = 0
    failed: int = 0
    open: int = 0
    latencies: Counter[int] = field(default_factory=Counter)
    waits: Counter[int] = field(default_factory=Counter)

    def add(self, other: Step) -> None:
        """Take another step in."""
        self.accepted += other.accepted
        self.completed += other.completed
        self.failed += other.failed
        self.open += other.open
        self.latencies.update(other.latencies)
        self.waits.update(other.waits)


def bucket_of(seconds: float) -> int:
    """Return the number of the bucket that a duration is counted in."""
    return max(0, math.ceil(math.log(max(seconds, 0.001) / 0.001, RATIO)))


def percentile_s(buckets: Mapping[int, int], share: float) -> float | None:
    """Return the duration within which `share` of what was counted stays; None of nothing."""
    wanted = share * sum(buckets.values())
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= wanted:
            return float(0.001 * RATIO**bucket)
    return None


def roll_up(
    connection: psycopg.Connection, is_over: Callable[[], bool] = lambda: False
) -> list[datetime]:
    """Make the steps that have ended, and those anew whose runs were open; forget old ones.

    Returns the minutes that were made.
    """
    [(now, last)] = connection.execute(f"SELECT clock_timestamp(), ({_LAST})").fetchall()
    since = now - FARTHEST
    # The last one once more: what was accepted in a longer transaction is there by now.
    first = floor_to(since if last is None else max(since, last), MINUTE_S)
    if last is None:
        first = max(first, floor_to(now, MINUTE_S) - timedelta(minutes=MOST_STEPS))
    ended = int((floor_to(now, MINUTE_S) - first).total_seconds()) // MINUTE_S
    minutes = [first + timedelta(minutes=n) for n in range(min(ended, MOST_STEPS))]
    again = connection.execute(_AGAIN, {"since": since, "most": MOST_STEPS}).fetchall()
    done: list[datetime] = []
    for minute in dict.fromkeys([*minutes, *(at for (at,) in again)]):
        if is_over():
            break
        _store(connection, MINUTE_S, minute, _minute(connection, minute))
        done.append(minute)
    unmade = [hour for (hour,) in connection.execute(_UNMADE, [since]).fetchall()]
    for step_s, part_s, also in ((QUARTER_S, MINUTE_S, ()), (HOUR_S, QUARTER_S, unmade)):
        for at in sorted({*(floor_to(minute, step_s) for minute in done), *also}):
            _store(connection, step_s, at, _sum(connection, at, step_s, part_s))
    for step_s, kept in KEPT.items():
        connection.execute(_FORGET, [step_s, now - kept])
    return done


def _minute(connection: psycopg.Connection, minute: datetime) -> dict[str, Step]:
    bounds = {
        "first": first_run_id_at(minute.timestamp()),
        "end": first_run_id_at(minute.timestamp() + MINUTE_S),
    }
    steps = {task: Step(*counts) for task, *counts in connection.execute(_COUNT, bounds).fetchall()}
    accepted = sum(step.accepted for step in steps.values())
    if accepted:
        every = max(1, accepted // SAMPLE)
        rows = connection.execute(_SAMPLE, {**bounds, "every": every}).fetchall()
        for task, latency_s, wait_s in rows:
            if task in steps and latency_s is not None:
                steps[task].latencies[bucket_of(latency_s)] += 1
            if task in steps and wait_s is not None:
                steps[task].waits[bucket_of(wait_s)] += 1
    return steps


def _sum(connection: psycopg.Connection, at: datetime, step_s: int, part_s: int) -> dict[str, Step]:
    end = at + timedelta(seconds=step_s)
    steps: dict[str, Step] = {}
    for task, *values in connection.execute(_PARTS, [part_s, at, end]).fetchall():
        if task != ALL:
            steps.setdefault(task, Step()).add(step_of(values))
    return steps


def _store(
    connection: psycopg.Connection, step_s: int, at: datetime, steps: Mapping[str, Step]
) -> None:
    total = Step()
    for step in steps.values():
        total.add(step)
    rows = [
        [task, step.accepted, step.completed, step.failed, step.open, *_texts(step)]
        for task, step in {**steps, ALL: total}.items()
    ]
    columns = [list(column) for column in zip(*rows, strict=True)]
    connection.execute(_STORE, [step_s, at, *columns])


def _texts(step: Step) -> list[str]:
    """Return the step's counters as JSON."""
    counters = (step.latencies, step.waits)
    return [orjson.dumps(c, option=orjson.OPT_NON_STR_KEYS).decode() for c in counters]


def step_of(values: Sequence[object]) -> Step:
    """Return a step as it is stored."""
    accepted, completed, failed, still_open, latencies, waits = values
    return Step(
        int(str(accepted)),
        int(str(completed)),
        int(str(failed)),
        int(str(still_open)),
        _counter(latencies),
        _counter(waits),
    )


def _counter(stored: object) -> Counter[int]:
    items: Iterable[tuple[str, int]] = stored.items() if isinstance(stored, dict) else ()
    return Counter({int(bucket): count for bucket, count in items})


def floor_to(moment: datetime, step_s: int) -> datetime:
    """Return when the step of a moment began."""
    seconds = int(moment.timestamp()) // step_s * step_s
    return datetime.fromtimestamp(seconds, UTC)
