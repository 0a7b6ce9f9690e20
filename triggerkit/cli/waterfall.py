"""Waterfalls in the terminal: what happened when, as bars on one scale of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from rich.markup import escape
from rich.table import Column, Table

from triggerkit.terminal.console import TerminalConsole

#: As wide as a line gets: a terminal wraps it, where rich would cut off what was measured.
WIDTH = 240

#: Characters of the bar that shows when something happened between the first and the last.
BAR_CHARS = 24

#: Seconds a run may have waited for nothing but its delay, to be told as delayed.
AT_ONCE_S = 0.001


class Bar(NamedTuple):
    """A bar of the waterfall; what has not ended yet has no end."""

    what: str
    start: datetime
    end: datetime | None
    outcome: str = ""


class RunWay(NamedTuple):
    """A run's way: `attempts` in order, and `spans` as they were written, both with their times."""

    created_at: datetime
    queued_at: datetime
    finished_at: datetime | None
    status: str
    queue: str
    attempts: Sequence[dict[str, Any]]
    spans: Sequence[dict[str, Any]]


def draw(steps: Sequence[Bar]) -> None:
    """Print a line for each step; the first one is at 0 ms."""
    start = steps[0].start
    end = max(step.end or step.start for step in steps)
    whole: dict[str, Any] = {"no_wrap": True, "overflow": "ignore"}
    table = Table(Column("ms", justify="right"), box=None, pad_edge=False)
    for name in ("", "what", "took", "outcome"):
        table.add_column(name, **whole)
    for step in steps:
        table.add_row(
            f"{_ms(start, step.start):,.1f}",
            _bar(start, end, step),
            escape(step.what),
            "" if step.end in (None, step.start) else f"{_ms(step.start, step.end):,.1f} ms",
            escape(step.outcome),
        )
    TerminalConsole(highlight=False, soft_wrap=True, width=WIDTH).print(table)


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
        yield Bar("done", run.finished_at, run.finished_at, run.status)
    elif run.status != "executing":
        yield Bar(run.status, ended, None, run.queue)


def time_of(value: datetime | str) -> datetime:
    """Return a time that may have come as JSON."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _waits(
    run: RunWay, since: datetime, until: datetime, *, is_retry: bool, is_last: bool
) -> Iterator[Bar]:
    # When it was queued is known of the last time only.
    queued = run.queued_at if is_last else since
    queued = min(max(queued, since), until)
    if (queued - since).total_seconds() > AT_ONCE_S:
        yield Bar("waits for its retry" if is_retry else "not yet ready", since, queued)
    yield Bar("queued", queued, until, run.queue)


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


def _ms(start: datetime, end: datetime | None) -> float:
    return 0.0 if end is None else (end - start).total_seconds() * 1000


def _bar(start: datetime, end: datetime, step: Bar) -> str:
    whole = max(_ms(start, end), 0.001)
    first = min(BAR_CHARS - 1, max(0, int(BAR_CHARS * _ms(start, step.start) / whole)))
    last = min(BAR_CHARS, max(first + 1, int(BAR_CHARS * _ms(start, step.end or end) / whole)))
    return f"{' ' * first}{'█' * (last - first)}{' ' * (BAR_CHARS - last)}"
