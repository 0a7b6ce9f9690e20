"""The way of a change as bars on one scale of time: events, work, and the waits between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from triggerkit.consumers.trace.changes import ConsumerTrace, Trace
from triggerkit.consumers.trace.runs import TracedRun

#: Seconds a run may have waited for nothing but its delay, to be told as delayed.
AT_ONCE_S = 0.001


class Bar(NamedTuple):
    """A bar of the waterfall; what has not ended yet has no end. `run` is whose it is."""

    what: str
    start: datetime
    end: datetime | None
    outcome: str = ""
    kind: Literal["event", "work", "wait"] = "work"
    run: str | None = None


class RunWay(NamedTuple):
    """A run's way: `attempts` in order, and `spans` as they were written, both with their times."""

    created_at: datetime
    queued_at: datetime
    finished_at: datetime | None
    status: str
    queue: str
    attempts: Sequence[dict[str, Any]]
    spans: Sequence[dict[str, Any]]


def steps_of_change(found: Trace) -> Iterator[Bar]:
    """Commit, capture, deliveries, and the runs that they made."""
    yield Bar("committed", found.committed_at, found.committed_at, kind="event")
    yield Bar("captured", found.captured_at, found.captured_at, "in the log", "event")
    for way in found.consumers:
        yield from _of_consumer(way)


def steps_of_run(run: RunWay) -> Iterator[Bar]:
    """Waits, attempts with their spans, and the end of a run."""
    ended = run.created_at
    for attempt in run.attempts:
        started = time_of(attempt["started_at"])
        is_last = attempt is run.attempts[-1]
        yield from _waits(run, ended, started, is_retry=attempt["attempt"] > 1, is_last=is_last)
        finished = attempt["finished_at"]
        ended = started if finished is None else time_of(finished)
        yield Bar(
            f"attempt {attempt['attempt']}",
            started,
            None if finished is None else ended,
            _outcome(attempt),
        )
        yield from _spans(run.spans, attempt["attempt"])
    if run.finished_at is not None:
        yield Bar("done", run.finished_at, run.finished_at, run.status, "event")
    elif run.status != "executing":
        yield Bar(run.status, ended, None, run.queue, "wait")


def time_of(value: datetime | str) -> datetime:
    """Return a time that may have come as JSON."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _of_consumer(way: ConsumerTrace) -> Iterator[Bar]:
    for attempt in way.attempts:
        what = f"{way.consumer}: delivery, attempt {attempt.attempt}"
        if attempt.messages > 1:
            what += f", {attempt.messages} messages"
        outcome = str(attempt.status or "") if attempt.error is None else attempt.error
        yield Bar(what, attempt.sent_at, attempt.answered_at, outcome)
    if way.parked is not None:
        at = way.parked.parked_at
        yield Bar(f"{way.consumer}: parked", at, at, way.parked.state, "event")
    for run in way.runs:
        yield from _of_traced_run(run)


def _of_traced_run(run: TracedRun) -> Iterator[Bar]:
    at = run.created_at
    yield Bar(f"{run.id}: accepted", at, at, run.task, "event", run.id)
    way = RunWay(**{name: getattr(run, name) for name in RunWay._fields})
    for step in steps_of_run(way):
        yield step._replace(what=f"  {step.what}", run=run.id)


def _waits(
    run: RunWay, since: datetime, until: datetime, *, is_retry: bool, is_last: bool
) -> Iterator[Bar]:
    # When it was queued is known of the last time only.
    if is_retry and not is_last:
        yield Bar("waits for its retry, queued", since, until, run.queue, "wait")
        return
    queued = run.queued_at if is_last else since
    queued = min(max(queued, since), until)
    if (queued - since).total_seconds() > AT_ONCE_S:
        what = "waits for its retry" if is_retry else "not yet ready"
        yield Bar(what, since, queued, kind="wait")
    yield Bar("queued", queued, until, run.queue, "wait")


def _spans(spans: Iterable[dict[str, Any]], attempt: int) -> Iterator[Bar]:
    own = [span for span in spans if span["attempt"] == attempt and span["kind"] == "span"]
    parents = {span["span_id"]: span["parent"] for span in own}
    for span in sorted(own, key=lambda span: time_of(span["started_at"])):
        depth, parent = 1, span["parent"]
        while parent in parents and depth < 20:
            depth, parent = depth + 1, parents[parent]
        end = None if span["ended_at"] is None else time_of(span["ended_at"])
        yield Bar(
            f"{'  ' * depth}{span['name']}", time_of(span["started_at"]), end, span["error"] or ""
        )


def _outcome(attempt: dict[str, Any]) -> str:
    error = attempt["error"]
    if error is None:
        return str(attempt["status"])
    return f"{attempt['status']}: {error['type'] if isinstance(error, dict) else error}"
