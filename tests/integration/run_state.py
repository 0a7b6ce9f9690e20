"""Runs as the tests make, claim, complete and look at them: real state, no worker process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg
import redis
from psycopg import sql

from triggerkit.runs.claim import RunClaims
from triggerkit.runs.client import Client, installation
from triggerkit.runs.run import ClaimedRun, NewRun, Outcome, ReadyRun, RunError, RunRef
from triggerkit.runs.session import by_index
from triggerkit.runs.transport.redis import task_key
from triggerkit.settings import Settings
from triggerkit.state.connect import connect_blocking, pinned

T = TypeVar("T")

TASK = "work"
QUEUE = "default"

#: Keys of which not exactly the first unfinished runs are unblocked, as many as may go on: there
#: must never be one.
_BROKEN_KEYS = """
SELECT task, concurrency_key FROM triggerkit.runs
WHERE concurrency_key IS NOT NULL AND finished_at IS NULL
GROUP BY task, concurrency_key
HAVING count(*) FILTER (WHERE NOT blocked) <> least(count(*), max(concurrency_per_key))
    OR max(seq) FILTER (WHERE NOT blocked) > min(seq) FILTER (WHERE blocked)
"""


def new_run(key: str | None = None, **given: Any) -> NewRun:
    """A run of the tests' task."""
    values = {"task": TASK, "queue": QUEUE, "max_attempts": 3, "payload": b'{"n":1}', **given}
    return NewRun(concurrency_key=key, **values)


def completed(run: ClaimedRun, **given: Any) -> Outcome:
    """The outcome of an attempt that succeeded."""
    return Outcome(run, "completed", **{"output": b'"done"', **given})


def failed_attempt(run: ClaimedRun, retry_in_s: float) -> Outcome:
    """The outcome of an attempt that failed and is made again."""
    error = RunError("ValueError", "no luck", "")
    return Outcome(run, "retrying", error=error, retry_in_s=retry_in_s)


@dataclass
class RunState:
    """One database's runs and the ids of them that are in Redis."""

    settings: Settings
    connection: psycopg.Connection[Any]
    redis: redis.Redis
    namespace: str = field(default="")

    def accept(self, *runs: NewRun) -> list[RunRef]:
        """Accept `runs` as one request does."""

        async def accepted() -> list[RunRef]:
            client = await Client.open(self.settings)
            try:
                return await client.accept(runs)
            finally:
                await client.close()

        return asyncio.run(accepted())

    @contextmanager
    def claims(
        self, worker_id: str = "worker-1", tasks: Sequence[str] = (TASK,)
    ) -> Iterator[RunClaims]:
        """A worker's side, on a connection of its own; the worker has a lease."""
        self.connection.execute(
            "INSERT INTO triggerkit.workers (id, hostname, pid, parent_pid, slots) "
            "VALUES (%s, 'host', 2, 1, 1) ON CONFLICT DO NOTHING",
            [worker_id],
        )
        with connect_blocking(pinned(by_index(self.settings.state_dsn), "test")) as connection:
            yield RunClaims(connection, worker_id, tasks)

    def rows(self, query: str, *parameters: Any) -> list[Any]:
        """What `query` answers; the value itself where it has one column."""
        rows = self.connection.execute(query, parameters).fetchall()
        return [row[0] if len(row) == 1 else row for row in rows]

    def run(self, run_id: str) -> dict[str, Any]:
        """A run's row."""
        [row] = self.rows("SELECT to_jsonb(r) FROM triggerkit.runs r WHERE id = %s", run_id)
        return dict(row)

    def attempts(self, run_id: str) -> list[Any]:
        """A run's attempts: number, status, worker."""
        return self.rows(
            "SELECT attempt, status, worker FROM (SELECT run_id, attempt, status, worker FROM "
            "triggerkit.attempts UNION SELECT id, attempt, status, worker FROM triggerkit.runs "
            "WHERE status IN ('completed', 'executing')) a WHERE run_id = %s ORDER BY attempt",
            run_id,
        )

    def statuses(self) -> list[str]:
        """The runs' statuses in order of arrival."""
        return self.rows("SELECT status FROM triggerkit.runs ORDER BY seq")

    def wait_for(self, condition: Callable[[], T], seconds: float = 15.0) -> T:
        """Wait until `condition` answers something true, and return it."""
        deadline = time.monotonic() + seconds
        while not (seen := condition()):
            assert time.monotonic() < deadline, f"in vain: {self.statuses()}"
            time.sleep(0.01)
        return seen

    def wait_for_status(self, status: str, *run_ids: str) -> list[dict[str, Any]]:
        """Wait until every one of the runs has `status`, and return their rows."""
        query = "SELECT status FROM triggerkit.runs WHERE id = ANY (%s)"
        self.wait_for(lambda: set(self.rows(query, list(run_ids))) == {status})
        return [self.run(run_id) for run_id in run_ids]

    def broken_keys(self) -> list[Any]:
        """Keys that are stuck or run twice at once."""
        return self.rows(_BROKEN_KEYS)

    def pushed(self, task: str = TASK) -> list[str]:
        """The ids in Redis, in the order in which they are taken."""
        found: Any = self.redis.zrange(task_key(self.namespace, task), 0, -1)
        return [run_id.decode() for run_id in found]

    def push(self, *ids: str | bytes, task: str = TASK) -> None:
        """Put ids into Redis, whatever they are, after those that are there."""
        now = time.time_ns() // 1000
        ranks: Any = {run_id: now + place for place, run_id in enumerate(ids)}
        self.redis.zadd(task_key(self.namespace, task), ranks)

    def take(self, task: str = TASK) -> list[str]:
        """Take all ids out of Redis, as workers do."""
        ids = self.pushed(task)
        self.redis.delete(task_key(self.namespace, task))
        return ids


def ids_of(ready: Sequence[ReadyRun]) -> list[str]:
    """The ids of runs that are to be pushed."""
    return [run.id for run in ready]


@contextmanager
def postgres_away(settings: Settings) -> Iterator[None]:
    """The database refuses and breaks every connection, as while its server is away."""
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        parameter = connection.info.dbname
    with psycopg.connect(settings.state_dsn, dbname="postgres", autocommit=True) as connection:
        allow = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
        connection.execute(allow.format(name, sql.SQL("false")))
        try:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                [parameter],
            )
            yield
        finally:
            connection.execute(allow.format(name, sql.SQL("true")))


@contextmanager
def run_state(settings: Settings) -> Iterator[RunState]:
    """The state behind `settings`."""
    namespace = asyncio.run(installation(settings))
    with (
        connect_blocking(pinned(by_index(settings.state_dsn), "test")) as connection,
        redis.Redis.from_url(settings.broker_dsn) as client,
    ):
        yield RunState(settings, connection, client, namespace)
