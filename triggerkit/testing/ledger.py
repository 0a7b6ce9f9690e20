"""Runs in memory and how they move on: what the state database does for real ones.

The tests in `tests/conformance` hold both to the same behaviour.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

from triggerkit.errors import TriggerkitError
from triggerkit.runs.run import ClaimedRun, NewRun, Outcome, Status, short_key
from triggerkit.tasks.task import Task
from triggerkit.testing.recorded import RecordedRun

#: A task's name and one of its keys.
_Key = tuple[str, str | None]


class Ledger:
    """All runs, by id. Times are given, so that they are the clock's."""

    def __init__(self) -> None:
        self.runs: dict[str, RecordedRun] = {}
        #: Runs that can start, in the order in which they do; others may be among them.
        self._ready: list[tuple[float, int, RecordedRun]] = []
        #: Unfinished runs that have a time: to start, to be tried again, or to expire.
        self._timed: dict[str, RecordedRun] = {}
        self._unfinished: defaultdict[_Key, dict[str, RecordedRun]] = defaultdict(dict)
        self._items: dict[str, RecordedRun] = {}
        self._known: dict[_Key, tuple[RecordedRun, datetime | None]] = {}
        self._debounced: dict[_Key, RecordedRun] = {}

    def add(self, task: Task[Any, Any, Any], new: NewRun, now: datetime) -> RecordedRun:
        """Make a run, or find the one that stands for it already."""
        if found := self._known_run(new, now) or self._debounced_run(new, now):
            return found
        options = new.options
        run = RecordedRun(
            task, new, len(self.runs), now, new.status, new.attempt, 0.0,
            payload_json=new.payload, error=new.error,
            priority_s=0 if options is None else options.priority_s,
        )  # fmt: skip
        run.tags, run.metadata = list(run.options.tags), dict(run.options.metadata or {})
        self.runs[run.id] = run
        if run.options.cancel_with_parent and self._is_canceled(run.options.parent_id):
            run.status = "canceled"
        self._remember_idempotency(run, now)
        if run.is_finished:
            run.finished_at = now
            return run
        self._remember_keys(run)
        if new.delay_s > 0:
            run.scheduled_at = _later(now, new.delay_s)
            self._timed[run.id] = run
        if options is not None and options.ttl_s is not None:
            run.expires_at = _later(now, max(new.delay_s, 0.0) + options.ttl_s)
            self._timed[run.id] = run
        if new.concurrency_key is not None:
            run.is_blocked = True
            self._let_go_on(run, now)
        elif run.status == "queued":
            self._push(run, now)
        return run

    def claim(self, now: datetime) -> ClaimedRun | None:
        """Begin an attempt of the run that is next; None when none is due."""
        self._look_at_times(now)
        while self._ready:
            rank, _, run = heapq.heappop(self._ready)
            if run.status == "queued" and run.rank == rank:
                return self.begin(run, now)
        return None

    def begin(self, run: RecordedRun, now: datetime) -> ClaimedRun:
        """Begin an attempt of `run`, whatever it waits for."""
        run.status, run.started_at, run.attempt = "executing", now, run.attempt + 1
        self._timed.pop(run.id, None)
        held = [r.new.item_key or "" for r in self._items.values() if r.task is run.task]
        return run.claimed(now, [] if run.new.items is None else held)

    def give_back(self, run: RecordedRun) -> None:
        """Undo the beginning of an attempt."""
        run.status, run.attempt = "queued", run.attempt - 1
        heapq.heappush(self._ready, (run.rank, run.seq, run))

    def complete(self, outcome: Outcome, now: datetime) -> None:
        """Note how an attempt ended."""
        run = self.runs[outcome.run.id]
        run.take_in(outcome)
        if outcome.retry_in_s is None or run.is_canceled:
            self._finish(run, outcome.status if outcome.retry_in_s is None else "canceled", now)
        else:
            run.status, run.scheduled_at = "retrying", _later(now, outcome.retry_in_s)
            self._timed[run.id] = run
        for new in outcome.spawned:
            self.add(run.task, new, now)

    def cancel(self, run: RecordedRun, now: datetime) -> bool:
        """Cancel `run`; False when it has ended already. One that executes is canceled later."""
        if run.is_finished:
            return False
        if run.status == "executing":
            run.is_canceled = True
        else:
            self._finish(run, "canceled", now)
        for child in run.triggered:
            if child.options.cancel_with_parent:
                self.cancel(child, now)
        return True

    def reschedule(self, run: RecordedRun, delay_s: float, now: datetime) -> None:
        """Have `run`, which waits, start so much later.

        Raises:
            TriggerkitError: it does not wait.
        """
        if run.is_finished or run.status == "executing":
            raise TriggerkitError(f"{run.id} is {run.status}: only a run that waits is rescheduled")
        run.status = "retrying" if run.attempt else "delayed"
        due_at = _later(now, delay_s)
        if run.expires_at is not None:
            run.expires_at = due_at + (run.expires_at - (run.scheduled_at or run.created_at))
        run.scheduled_at = due_at
        self._timed[run.id] = run

    def next_at(self) -> datetime | None:
        """Return the time of what is due next, once all that is due now is claimed."""
        times = [_start_of(run) for run in self._timed.values()]
        times += [_expiry_of(run) for run in self._timed.values()]
        return min((at for at in times if at is not None), default=None)

    def forget_key(self, task: str, key: str) -> bool:
        """Forget an idempotency key; False when no run has it."""
        return self._known.pop((task, short_key(key)), None) is not None

    def _is_canceled(self, run_id: str | None) -> bool:
        run = self.runs.get(run_id or "")
        return run is not None and (run.is_canceled or run.status == "canceled")

    def _known_run(self, new: NewRun, now: datetime) -> RecordedRun | None:
        run, until = self._known.get((new.task, new.idempotency_key), (None, None))
        return None if until is not None and until < now else run

    def _debounced_run(self, new: NewRun, now: datetime) -> RecordedRun | None:
        if new.options is None or new.options.debounce_key is None or new.status != "delayed":
            return None
        run = self._debounced.get((new.task, new.options.debounce_key))
        if run is None or run.status != "delayed":
            return None
        options = new.options
        if not options.debounce_keeps_first:
            run.payload_json = new.payload
            run.priority_s = options.priority_s
            run.tags, run.metadata = list(options.tags), dict(options.metadata or {})
        run.scheduled_at = _later(now, new.delay_s)
        if options.debounce_max_s is not None:
            latest = _later(run.created_at, options.debounce_max_s)
            run.scheduled_at = min(run.scheduled_at, latest)
        ttl_s = options.ttl_s
        run.expires_at = None if ttl_s is None else _later(run.scheduled_at, ttl_s)
        return run

    def _remember_idempotency(self, run: RecordedRun, now: datetime) -> None:
        if run.new.idempotency_key is not None:
            ttl_s = run.options.idempotency_ttl_s
            until = None if ttl_s is None else _later(now, ttl_s)
            self._known[run.new.task, run.new.idempotency_key] = run, until

    def _remember_keys(self, run: RecordedRun) -> None:
        new, options = run.new, run.options
        if options.debounce_key is not None:
            self._debounced[new.task, options.debounce_key] = run
        if new.concurrency_key is not None:
            self._unfinished[new.task, new.concurrency_key][run.id] = run
        if new.item_key is not None:
            self._items[run.id] = run

    def _look_at_times(self, now: datetime) -> None:
        for run in list(self._timed.values()):
            start, expiry = _start_of(run), _expiry_of(run)
            if expiry is not None and expiry <= now:
                self._finish(run, "expired", now)
            elif start is not None and start <= now:
                run.status = "queued"
                self._push(run, now)

    def _finish(self, run: RecordedRun, status: Status, now: datetime) -> None:
        run.status, run.finished_at = status, now
        self._timed.pop(run.id, None)
        self._items.pop(run.id, None)
        if run.new.concurrency_key is not None:
            self._unfinished[_key(run)].pop(run.id, None)
            self._let_go_on(run, now)

    def _let_go_on(self, run: RecordedRun, now: datetime) -> None:
        """Let those of the key of `run` go on, in order, that it has room for."""
        for going, one in enumerate(self._unfinished[_key(run)].values()):
            if not one.is_blocked:
                continue
            if going >= one.options.concurrency_per_key:
                break
            one.is_blocked = False
            if one.status == "queued":
                self._push(one, now)

    def _push(self, run: RecordedRun, now: datetime) -> None:
        """It can start, unless it is behind others of its key."""
        if not run.is_blocked:
            run.rank = now.timestamp() - run.priority_s
            heapq.heappush(self._ready, (run.rank, run.seq, run))


def _key(run: RecordedRun) -> _Key:
    return run.new.task, run.new.concurrency_key


def _start_of(run: RecordedRun) -> datetime | None:
    return run.scheduled_at if run.status in ("delayed", "retrying") else None


def _expiry_of(run: RecordedRun) -> datetime | None:
    waits = run.status in ("delayed", "queued") and run.attempt == 0
    return run.expires_at if waits else None


def _later(moment: datetime, seconds: float) -> datetime:
    return moment + timedelta(seconds=seconds)
