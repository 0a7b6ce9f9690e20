"""Judge a task's exception: the error that is stored, whether to try again, and when."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from traceback import FrameSummary, StackSummary, TracebackException

from triggerkit.errors import (
    AbortRun,
    InvalidPayload,
    RetryAfter,
    alone,
    leaves_of,
    raised_at,
    text_of,
)
from triggerkit.runs.run import ClaimedRun, Outcome, RunError, storable
from triggerkit.tasks import task
from triggerkit.tasks.payload import payload_type
from triggerkit.worker.attempt import HandedBack, Stopped, TimedOut

#: Longest message and traceback that are stored, in characters; of a traceback its end.
MAX_MESSAGE = 10_000
MAX_TRACEBACK = 20_000

#: Longest wait that a task may ask for, in seconds: a year.
MAX_WAIT_S = 366 * 86400.0

#: The shortest and the longest wait, in seconds, for what a task calls and is busy or away.
SHORTEST_AWAY_S = 1.0
LONGEST_AWAY_S = 3600.0

#: Frames of these files are ours, not the user's.
_OWN_FOLDERS = (
    Path(__file__).parent,
    Path(task.__file__).parent,
    Path(payload_type.__file__).parent,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of an attempt. `final`: no attempt can help. `wait_s`: asked for by the task.
    `away`: by what the task calls, for which all its runs wait."""

    error: RunError
    final: bool
    wait_s: float | None
    away: bool = False


def failure_of(
    error: BaseException,
    *,
    permanent: bool = False,
    retry_after_s: float | None = None,
    decided: BaseException | None = None,
    away: bool = False,
) -> Failure:
    """Judge `error`; `permanent` and `retry_after_s` as an `ItemFailure` says, `decided` as a
    hook does, by `AbortRun` or `RetryAfter`, and `away` as the task's `wait_for` does."""
    verdict = verdict_in(error) if decided is None else decided
    if isinstance(verdict, RetryAfter):
        retry_after_s = verdict.seconds
    wait_s = _seconds(retry_after_s)
    if away and wait_s is None:
        wait_s = _asked_by_answer(error)
    return Failure(
        error=run_error(error),
        final=permanent or isinstance(verdict, AbortRun) or isinstance(error, InvalidPayload),
        wait_s=min(max(wait_s or 0.0, SHORTEST_AWAY_S), LONGEST_AWAY_S) if away else wait_s,
        away=away,
    )


def verdict_in(error: BaseException) -> AbortRun | RetryAfter | None:
    """Return what the task decided by its exception, also in a group: the first that aborts the
    run, else the one that asks for the longest wait."""
    decisions = [e for e in leaves_of(error) if isinstance(e, AbortRun | RetryAfter)]
    for decision in decisions:
        if isinstance(decision, AbortRun):
            return decision
    return max(
        (d for d in decisions if isinstance(d, RetryAfter)),
        key=lambda decision: _seconds(decision.seconds) or 0.0,
        default=None,
    )


def stopped_outcome(
    run: ClaimedRun, reason: type[Stopped], max_duration_s: float | None
) -> Outcome:
    """Return the outcome of an attempt that was stopped from outside; `queued`: of one that is as
    if it had never been made."""
    if issubclass(reason, HandedBack):
        return Outcome(run, "queued")
    if issubclass(reason, TimedOut):
        text = f"it took longer than its max_duration of {max_duration_s or 0:g} s"
        return Outcome(run, "timed_out", error=RunError(reason.__name__, text, ""))
    text = "it was canceled while it executed"
    return Outcome(run, "canceled", error=RunError(reason.__name__, text, ""))


def broken_outcome(run: ClaimedRun, error: BaseException) -> Outcome:
    """Return the outcome of an attempt that our own code around it did not bring to one."""
    return Outcome(run, "failed", error=run_error(error))


def run_error(error: BaseException) -> RunError:
    """Return the error as it is stored with its run: causes included, our own frames left out.

    Whatever the error's class does, there is one: an error that is not stored ends no run.
    """
    return RunError(
        type(error).__name__,
        storable(text_of(error))[:MAX_MESSAGE],
        storable(_traceback_of(error))[-MAX_TRACEBACK:],
    )


def _traceback_of(error: BaseException) -> str:
    """Return its traceback; of an error that breaks whoever describes it, where it was raised."""
    try:
        traceback_ = TracebackException.from_exception(error, compact=True)
        _leave_out_own_frames(traceback_)
        return "".join(traceback_.format())
    except BaseException:
        return alone(error, StackSummary.from_list(_others(raised_at(error))))


def _leave_out_own_frames(traceback_: TracebackException | None) -> None:
    while traceback_ is not None:
        traceback_.stack = StackSummary.from_list(_others(traceback_.stack))
        traceback_ = traceback_.__cause__ or traceback_.__context__


def _others(frames: StackSummary) -> list[FrameSummary]:
    return [frame for frame in frames if Path(frame.filename).parent not in _OWN_FOLDERS]


def _asked_by_answer(error: BaseException) -> float | None:
    """Return the seconds that an HTTP answer asks to wait, which clients' exceptions carry."""
    try:
        headers = getattr(getattr(error, "response", None), "headers", None)
        return None if headers is None else _seconds(headers.get("retry-after"))
    except Exception:
        return None


def _seconds(asked: float | None) -> float | None:
    """Return a wait that Postgres can add to a time; None where a task asked for no number."""
    try:
        return None if asked is None else min(max(0.0, float(asked)), MAX_WAIT_S)
    except (TypeError, ValueError):
        return None
