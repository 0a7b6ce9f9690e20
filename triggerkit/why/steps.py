"""The steps of a row on its way, the newest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from triggerkit.consumers.gap import Gap
from triggerkit.consumers.trace.changes import ConsumerTrace, Trace
from triggerkit.why.answer import Step
from triggerkit.why.run_cause import Explained, error_of


def steps_of(
    traces: Sequence[Trace], runs: Sequence[Explained], gaps: Sequence[Gap] = ()
) -> list[Step]:
    """Return all that is known, in one order of time; what has no time stands before."""
    found = [step for trace in traces for step in _of_change(trace)]
    known = {step.run: step for step in found if step.run is not None}
    for run, reason in runs:
        known[run["id"]] = _of_run(run, None if reason is None else reason.text)
    found = [step for step in found if step.run is None]
    found += known.values()
    found += [Step(gap.found_at, "gap", gap.cause) for gap in gaps]
    return sorted(found, key=_order, reverse=True)


def _order(step: Step) -> tuple[bool, float]:
    return step.at is None, 0.0 if step.at is None else step.at.timestamp()


def _of_change(trace: Trace) -> Iterator[Step]:
    changed = ", ".join(trace.changes or ())
    detail = f"changed {changed}" if changed else None
    if trace.fault is not None:
        detail = f"cannot be delivered: {trace.fault}"
    yield Step(trace.committed_at, trace.action, detail, position=trace.position)
    yield Step(trace.captured_at, "captured", position=trace.position)
    for way in trace.consumers:
        yield from _of_consumer(trace.position, way)


def _of_consumer(position: int, way: ConsumerTrace) -> Iterator[Step]:
    for attempt in way.attempts:
        outcome = attempt.error or (f"answered {attempt.status}" if attempt.status else "no answer")
        what = f"delivery, attempt {attempt.attempt}"
        if attempt.messages > 1:
            what += f", {attempt.messages} messages"
        yield Step(attempt.sent_at, what, outcome, way.consumer, position=position)
    if way.parked is not None:
        detail = f"{way.parked.state}: {way.parked.reason}"
        yield Step(way.parked.parked_at, "parked", detail, way.consumer, position=position)
    for run in way.runs:
        last = run.finished_at or run.started_at or run.created_at
        yield Step(last, f"run {run.status}", run.task, way.consumer, run.id, position)
    if way.state not in ("delivered", "parked"):
        yield Step(None, way.state, way.reason, way.consumer, position=position)


def _of_run(run: Mapping[str, Any], reason: str | None) -> Step:
    error, place = error_of(run)
    detail = run["task"]
    if run["status"] != "completed" and error:
        detail += f": {error}" + (f", at {place}" if place else "")
    if reason is not None:
        detail += f"; {reason}"
    at: datetime = run["finished_at"] or run["started_at"] or run["created_at"]
    source = run["source"] or {}
    what = f"run {run['status']}"
    return Step(at, what, detail, source.get("consumer"), run["id"], source.get("position"))
