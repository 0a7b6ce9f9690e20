"""The two places where runs can live: in memory, and on real servers with a real worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

import orjson
import psycopg

from tests.integration.run_state import RunState, run_state
from tests.integration.worker_thread import working
from triggerkit import Handle, Retry, Task, current_run
from triggerkit.runs.door import through
from triggerkit.runs.portal import Portal
from triggerkit.runs.run import FINAL
from triggerkit.settings import Settings
from triggerkit.testing import MemoryRuns, RecordedRun, memory_runs

#: Retries that no test has to wait for.
SOON = Retry(max_attempts=3, min_delay_s=0.05, jitter=False)


class Seen(NamedTuple):
    """What can be seen of a run in both. `error` is its type and message."""

    status: str
    attempt: int
    output: Any
    error: tuple[str, str] | None
    tags: list[str]
    metadata: dict[str, Any]
    payload: Any


class World(Protocol):
    """Somewhere runs live; what is triggered in this process goes there."""

    def working(self, *tasks: Task[Any, Any, Any]) -> AbstractContextManager[object]:
        """Have runs of `tasks` executed meanwhile, one at a time."""

    def ended(self, *handles: Handle) -> list[Seen]:
        """Wait until these runs have ended."""

    def came_to(self, status: str, *handles: Handle) -> list[Seen]:
        """Wait until all of these runs have a status."""

    def see(self, handle: Handle) -> Seen:
        """How the run is now."""

    def pass_time(self, seconds: float) -> None:
        """Let time pass, while nothing is executed."""

    def cancel_here(self) -> None:
        """Cancel the run that executes; where runs are stopped, this one is."""

    def count(self) -> int:
        """How many runs there are."""

    def first(self) -> Handle:
        """The first run; waits for it."""

    def transaction(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """A connection to trigger with; its transaction commits in the end."""

    def start_schedule(self, task: Task[Any, Any, Any]) -> None:
        """Have `task` run by its schedule, one tick of which is due."""

    def failed_items(self, handle: Handle) -> list[tuple[str, str, bool]]:
        """Of the items of a batch that failed alone: row, error's message, whether tried again."""


class InMemory:
    """Runs in memory."""

    def __init__(self, runs: MemoryRuns) -> None:
        self._runs = runs

    def working(self, *tasks: Task[Any, Any, Any]) -> AbstractContextManager[object]:
        return nullcontext()

    def ended(self, *handles: Handle) -> list[Seen]:
        self._runs.finish()
        seen = [self.see(handle) for handle in handles]
        assert all(one.status in FINAL for one in seen), seen
        return seen

    def came_to(self, status: str, *handles: Handle) -> list[Seen]:
        self._runs.drain()
        seen = [self.see(handle) for handle in handles]
        assert {one.status for one in seen} == {status}
        return seen

    def see(self, handle: Handle) -> Seen:
        run = self._runs[handle]
        error = None if run.error is None else (run.error.type, run.error.message)
        return Seen(
            run.status, run.attempt, run.output, error, run.tags, run.metadata, _payload(run)
        )

    def pass_time(self, seconds: float) -> None:
        self._runs.clock.advance(seconds)

    def cancel_here(self) -> None:
        _cancel_current()

    def count(self) -> int:
        return len(self._runs.all)

    def first(self) -> Handle:
        self._runs.drain()
        run = self._runs.all[0]
        return Handle(run.id, run.task.name)

    def transaction(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        connection: Any = object()
        return nullcontext(connection)

    def start_schedule(self, task: Task[Any, Any, Any]) -> None:
        self._runs.start_schedule(task)
        self._runs.clock.advance(60)

    def failed_items(self, handle: Handle) -> list[tuple[str, str, bool]]:
        return [
            (item.key, item.error.message, item.is_retried)
            for item in self._runs[handle].failed_items
        ]


class OnServers:
    """Runs in Postgres and Redis."""

    def __init__(self, state: RunState) -> None:
        self._state = state

    def working(self, *tasks: Task[Any, Any, Any]) -> AbstractContextManager[object]:
        return working(self._state, *tasks, threads=1, async_runs=1)

    def ended(self, *handles: Handle) -> list[Seen]:
        self._state.wait_for(lambda: all(self.see(h).status in FINAL for h in handles))
        return [self.see(handle) for handle in handles]

    def came_to(self, status: str, *handles: Handle) -> list[Seen]:
        self._state.wait_for_status(status, *(handle.id for handle in handles))
        return [self.see(handle) for handle in handles]

    def see(self, handle: Handle) -> Seen:
        row = self._state.run(handle.id)
        error = row["error"] and (row["error"]["type"], row["error"]["message"])
        output = None if row["output"] is None else orjson.loads(row["output"])
        payload = orjson.loads(row["payload"])
        return Seen(
            row["status"], row["attempt"], output, error, row["tags"], row["metadata"], payload
        )

    def pass_time(self, seconds: float) -> None:
        self._state.rows("SELECT pg_sleep(%s)::text", seconds)

    def cancel_here(self) -> None:
        _cancel_current()
        while True:
            time.sleep(0.01)

    def count(self) -> int:
        return len(self._state.statuses())

    def first(self) -> Handle:
        query = "SELECT id, task FROM triggerkit.runs ORDER BY seq LIMIT 1"
        [row] = self._state.wait_for(lambda: self._state.rows(query))
        return Handle(*row)

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self._state.settings.state_dsn) as connection:
            yield connection

    def start_schedule(self, task: Task[Any, Any, Any]) -> None:
        assert task.schedule is not None
        self._state.connection.execute(
            "INSERT INTO triggerkit.schedules "
            "(name, task, queue, max_attempts, cron, timezone, catch_up, next_at) "
            "VALUES (%s, %s, %s, 1, %s, 'UTC', false, date_trunc('minute', now()))",
            [task.name, task.name, task.queue, task.schedule.expression],
        )

    def failed_items(self, handle: Handle) -> list[tuple[str, str, bool]]:
        return self._state.rows(
            "SELECT item_key, error ->> 'message', finished_at IS NULL FROM triggerkit.runs "
            "WHERE source ->> 'batch' = %s AND error IS NOT NULL ORDER BY seq",
            handle.id,
        )


def _cancel_current() -> None:
    run = current_run()
    assert Handle(run.id, run.task).cancel()


def _payload(run: RecordedRun) -> Any:
    return orjson.loads(run.payload_json)


@contextmanager
def in_memory() -> Iterator[World]:
    """See `InMemory`."""
    with memory_runs() as runs:
        yield InMemory(runs)


@contextmanager
def on_servers(settings: Settings) -> Iterator[World]:
    """See `OnServers`."""
    portal = Portal(lambda: settings)
    with run_state(settings) as state, through(portal):
        try:
            yield OnServers(state)
        finally:
            portal.close()
