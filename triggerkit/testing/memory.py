"""Runs in memory as tasks and those who trigger them see it: they are accepted and waited for."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import orjson

from triggerkit.errors import NotDrained, UnknownRun, UnknownTask
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.journal_entry import JournalEntry
from triggerkit.runs.results import End
from triggerkit.runs.run import ClaimedRun, NewRun, Outcome, RunRef
from triggerkit.tasks.declare import declared
from triggerkit.tasks.handle import Handle
from triggerkit.testing.clock import Clock
from triggerkit.testing.executing import aexecute, execute
from triggerkit.testing.ledger import Ledger
from triggerkit.testing.recorded import RecordedRun
from triggerkit.testing.schedules import Schedules

#: Most attempts that are made at once.
LIMIT = 10_000

#: Later than everything.
NEVER = datetime.max.replace(tzinfo=UTC)


class Memory:
    """Stands in for the state database: the `Door` of what is triggered, and the `Notes` of what
    executes."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._ledger = Ledger()
        self._schedules = Schedules()
        self._lock = threading.RLock()

    @property
    def all(self) -> list[RecordedRun]:
        """All runs, in the order in which they were made."""
        return list(self._ledger.runs.values())

    def __getitem__(self, run: Handle | RunRef | str) -> RecordedRun:
        """Return the run of a handle, or with an id.

        Raises:
            UnknownRun: it is not among these.
        """
        run_id = run if isinstance(run, str) else run.id
        if run_id not in self._ledger.runs:
            raise UnknownRun(f"{run_id} is not among the {len(self.all)} runs in memory")
        return self._ledger.runs[run_id]

    def now(self) -> datetime:
        """See `Door`."""
        return self.clock.now()

    def accept(self, runs: Sequence[NewRun]) -> list[RunRef]:
        """See `Door`.

        Raises:
            UnknownTask: a run's task is not declared in this process.
        """
        with self._lock:
            return [self._accepted(run) for run in runs]

    async def accept_async(self, runs: Sequence[NewRun]) -> list[RunRef]:
        """See `Door`."""
        return self.accept(runs)

    def accept_within(self, connection: object, runs: Sequence[NewRun]) -> list[RunRef]:  # noqa: ARG002
        """See `Door`. They are accepted at once, as if the transaction were committed."""
        return self.accept(runs)

    async def accept_within_async(
        self,
        connection: object,  # noqa: ARG002
        runs: Sequence[NewRun],
    ) -> list[RunRef]:
        """See `accept_within`."""
        return self.accept(runs)

    def wait(self, run_id: str, timeout_s: float | None, waiter: ClaimedRun | None = None) -> End:  # noqa: ARG002
        """See `Door`. What is due meanwhile is executed, and the clock moves."""
        run, until = self[run_id], self._moment(timeout_s)
        self._drained(self._due(until or NEVER, lambda: run.is_finished))
        return self._end_of(run, until)

    async def wait_async(
        self,
        run_id: str,
        timeout_s: float | None,
        waiter: ClaimedRun | None = None,  # noqa: ARG002
    ) -> End:
        """See `wait`."""
        run, until = self[run_id], self._moment(timeout_s)
        await self._adrained(self._due(until or NEVER, lambda: run.is_finished))
        return self._end_of(run, until)

    def find(self, run_id: str) -> dict[str, Any] | None:
        """See `Door`."""
        run = self._ledger.runs.get(run_id)
        return None if run is None else run.as_row()

    async def find_async(self, run_id: str) -> dict[str, Any] | None:
        """See `Door`."""
        return self.find(run_id)

    def search(self, wanted: RunFilter, limit: int) -> list[dict[str, Any]]:
        """See `Door`."""
        found = (run for run in reversed(self.all) if run.fits(wanted))
        return [{**run.as_row(), "payload": None, "output": None} for run in islice(found, limit)]

    async def search_async(self, wanted: RunFilter, limit: int) -> list[dict[str, Any]]:
        """See `Door`."""
        return self.search(wanted, limit)

    def cancel(self, run_id: str) -> bool:
        """See `Door`. A run that executes is canceled before its next attempt."""
        with self._lock:
            return self._ledger.cancel(self[run_id], self.clock.now())

    async def cancel_async(self, run_id: str) -> bool:
        """See `Door`."""
        return self.cancel(run_id)

    def reschedule(self, run_id: str, delay_s: float) -> None:
        """See `Door`."""
        with self._lock:
            self._ledger.reschedule(self[run_id], delay_s, self.clock.now())

    async def reschedule_async(self, run_id: str, delay_s: float) -> None:
        """See `Door`."""
        self.reschedule(run_id, delay_s)

    def forget_key(self, task: str, key: str) -> bool:
        """See `Door`."""
        return self._ledger.forget_key(task, key)

    def put(self, entry: JournalEntry) -> None:
        """See `Notes`."""
        self[entry.run_id].entries.append(entry)

    def update(self, run: ClaimedRun, tags: list[str], metadata: dict[str, Any]) -> Future[None]:
        """See `Notes`."""
        recorded = self[run.id]
        recorded.tags, recorded.metadata = tags, metadata
        written: Future[None] = Future()
        written.set_result(None)
        return written

    def _accepted(self, new: NewRun) -> RunRef:
        task = declared.get(new.task)
        if task is None:
            raise UnknownTask(f"no task {new.task!r} is declared here: import its module")
        run = self._ledger.add(task, new, self.clock.now())
        if run.new is not new:
            return RunRef(run.id, new.task, duplicate=True)
        parent = self._ledger.runs.get(run.options.parent_id or "")
        if parent is not None:
            parent.triggered.append(run)
        return RunRef(run.id, new.task)

    def _drained(self, due: Iterator[ClaimedRun]) -> list[RecordedRun]:
        attempted: dict[str, RecordedRun] = {}
        for claimed in due:
            run = attempted[claimed.id] = self[claimed.id]
            self._end(execute(run.task, claimed, self))
        return list(attempted.values())

    async def _adrained(self, due: Iterator[ClaimedRun]) -> list[RecordedRun]:
        attempted: dict[str, RecordedRun] = {}
        for claimed in due:
            run = attempted[claimed.id] = self[claimed.id]
            self._end(await aexecute(run.task, claimed, self))
        return list(attempted.values())

    def _due(
        self, until: datetime, ended: Callable[[], bool] = lambda: False, limit: int = LIMIT
    ) -> Iterator[ClaimedRun]:
        """Yield the runs to execute, one after another; the clock moves between them."""
        made: Counter[str] = Counter()
        while not ended():
            claimed = self._claimed()
            if claimed is not None:
                if made.total() >= limit:
                    self._ledger.give_back(self[claimed.id])
                    raise NotDrained(_endless(made))
                made[claimed.task] += 1
                yield claimed
            elif not self._moved(until):
                return

    def _claimed(self) -> ClaimedRun | None:
        with self._lock:
            self.accept(list(self._schedules.due(self.clock.now())))
            return self._ledger.claim(self.clock.now())

    def _moved(self, until: datetime) -> bool:
        """Move the clock to what is due next; False when that is after `until`.

        Ticks go on forever: without an end they are nothing to wait for.
        """
        times = [self._ledger.next_at()]
        if until is not NEVER:
            times.append(self._schedules.next_at())
        at = min((at for at in times if at is not None), default=NEVER)
        if at > until or at is NEVER:
            return False
        self.clock.move_to(max(at, self.clock.now()))
        return True

    def _begun(self, run: RecordedRun) -> ClaimedRun:
        with self._lock:
            return self._ledger.begin(run, self.clock.now())

    def _end(self, outcome: Outcome) -> None:
        with self._lock:
            self._ledger.complete(outcome, self.clock.now())

    def _end_of(self, run: RecordedRun, until: datetime | None) -> End:
        if run.is_finished:
            output = None if run.output is None else orjson.dumps(run.output).decode()
            return End(run.id, run.status, output, None if run.error is None else run.error.message)
        if until is None:
            raise NotDrained(f"{run!r} is waited for, and nothing will let it go on")
        self.clock.move_to(max(until, self.clock.now()))
        raise TimeoutError

    def _moment(self, until: datetime | timedelta | float | None) -> datetime | None:
        if until is None:
            return None
        return self.clock.to_come(until if isinstance(until, datetime) else self.clock.after(until))


def _endless(made: Counter[str]) -> str:
    [(task, times)] = made.most_common(1)
    return (
        f"after {made.total()} attempts there is still something due; {task} had {times} of them: "
        "does it trigger itself, or ask to be tried again at once? Else give drain a higher limit="
    )
