"""Runs in memory as a test sees them: it has them executed, and looks at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from triggerkit.runs.door import through
from triggerkit.tasks.task import Task
from triggerkit.testing.clock import Clock
from triggerkit.testing.executing import aexecute, execute
from triggerkit.testing.memory import LIMIT, NEVER, Memory
from triggerkit.testing.recorded import RecordedRun


class MemoryRuns(Memory):
    """Accepts what is triggered, and executes it when it is told to. See `memory_runs`."""

    def drain(
        self, *, until: datetime | timedelta | float | None = None, limit: int = LIMIT
    ) -> list[RecordedRun]:
        """Execute what is due, in order, until nothing is; the runs that had an attempt.

        With `until`, a time or a span from now, the clock moves on to it, and stops at each
        moment at which something is due.

        Raises:
            NotDrained: after `limit` attempts there is still something due.
        """
        end = self._moment(until)
        attempted = self._drained(self._due(self.clock.now() if end is None else end, limit=limit))
        if end is not None:
            self.clock.move_to(end)
        return attempted

    async def adrain(
        self, *, until: datetime | timedelta | float | None = None, limit: int = LIMIT
    ) -> list[RecordedRun]:
        """`drain` for async tests: async tasks run on the test's own event loop."""
        end = self._moment(until)
        due = self._due(self.clock.now() if end is None else end, limit=limit)
        attempted = await self._adrained(due)
        if end is not None:
            self.clock.move_to(end)
        return attempted

    def finish(self, *, limit: int = LIMIT) -> list[RecordedRun]:
        """`drain`, and move the clock on as far as it takes until no run waits any more."""
        return self._drained(self._due(NEVER, limit=limit))

    async def afinish(self, *, limit: int = LIMIT) -> list[RecordedRun]:
        """`finish` for async tests."""
        return await self._adrained(self._due(NEVER, limit=limit))

    def start_schedule(self, task: Task[Any, Any, Any]) -> None:
        """Have `task` run by its schedule from now on: `drain` makes a run for each tick that the
        clock has passed.

        Raises:
            ConfigurationError: it has none.
        """
        self._schedules.start(task, self.clock.now())

    def of(self, task: Task[Any, Any, Any]) -> list[RecordedRun]:
        """Return the runs of `task`, in the order in which they were made."""
        return [run for run in self.all if run.task.name == task.name]

    def triggered(self, task: Task[Any, Any, Any]) -> RecordedRun:
        """Return the one run of `task`.

        Raises:
            AssertionError: there is none, or more than one; it shows those that there are.
        """
        runs = self.of(task)
        if len(runs) != 1:
            shown = "".join(f"\n  {run!r}" for run in runs or self.all) or "\n  none"
            which = "its runs" if runs else "all runs"
            raise AssertionError(f"{task.name} has {len(runs)} runs, not one; {which}:{shown}")
        return runs[0]

    def __repr__(self) -> str:
        return f"<runs in memory at {self.clock.now()}: {self.all}>"

    def attempt(self, run: RecordedRun) -> None:
        """Make one attempt of `run` now, whatever it waits for."""
        self._end(execute(run.task, self._begun(run), self))

    async def aattempt(self, run: RecordedRun) -> None:
        """`attempt` for async tests."""
        self._end(await aexecute(run.task, self._begun(run), self))


@contextmanager
def memory_runs(clock: Clock | None = None) -> Iterator[MemoryRuns]:
    """Meanwhile, all that is triggered in this process is recorded here, and nothing is executed
    before `drain`. No server is needed; limits of queues do not count."""
    runs = MemoryRuns(clock)
    with through(runs):
        yield runs
