"""The keeper: makes due runs runnable, returns runs of dead workers, fills what Redis lost.

One process keeps at a time, by advisory lock. It decides by Postgres's clock what is due, and by
its own monotonic clock who is dead.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

import psycopg
import redis

from triggerkit.runs.accept import LOCK_KEYS, lock_names
from triggerkit.runs.claim import UNBLOCK
from triggerkit.runs.queue import grouped, queue_key

logger = logging.getLogger(__name__)

#: Advisory lock of the keeper.
KEEPER_LOCK = 0x74726B_02

#: Seconds between two looks, and seconds without a beat after which a worker is dead.
TICK_S = 1.0
LEASE_S = 8.0

#: Attempts in which its worker died after which a run is given up.
MAX_CRASHES = 3

#: A queued run younger than this may still be on its way to Redis.
SETTLING_S = 1.0

_PROMOTE = """
UPDATE triggerkit.runs SET status = 'queued', queued_at = clock_timestamp()
WHERE id IN (SELECT id FROM triggerkit.runs
             WHERE status IN ('delayed', 'retrying') AND scheduled_at <= clock_timestamp()
             ORDER BY scheduled_at LIMIT 1000 FOR UPDATE SKIP LOCKED)
RETURNING queue, id, blocked
"""

_NEXT_DUE = """
SELECT extract(epoch FROM min(scheduled_at) - clock_timestamp())::float
FROM triggerkit.runs WHERE status IN ('delayed', 'retrying')
"""

#: Every executing run of a worker that is gone is queued again, or given up.
_RETURN = f"""
WITH gone AS (
    UPDATE triggerkit.runs
    SET crashes = crashes + 1,
        status = CASE WHEN crashes + 1 >= {MAX_CRASHES} THEN 'crashed' ELSE 'queued' END,
        finished_at = CASE WHEN crashes + 1 >= {MAX_CRASHES} THEN clock_timestamp() END,
        queued_at = clock_timestamp(),
        error = jsonb_build_object('type', 'WorkerDied', 'message',
            'the worker ' || worker || ' died while it executed this run', 'traceback', '')
    WHERE status = 'executing' AND (worker = ANY (%s) OR worker NOT IN (SELECT id FROM
        triggerkit.workers))
    RETURNING id, task, queue, status, attempt, started_at, worker, error, concurrency_key),
noted AS (
    INSERT INTO triggerkit.attempts (run_id, attempt, status, started_at, finished_at, worker,
        error)
    SELECT id, attempt, 'crashed', started_at, clock_timestamp(), worker, error FROM gone
    ON CONFLICT DO NOTHING)
SELECT queue, id, status, task, concurrency_key FROM gone
"""

_WAITING = """
SELECT queue, count(*) FROM triggerkit.runs
WHERE status = 'queued' AND NOT blocked
  AND queued_at < clock_timestamp() - %s * interval '1 second'
GROUP BY queue
"""

_WAITING_IDS = """
SELECT id FROM triggerkit.runs WHERE queue = %s AND status = 'queued' AND NOT blocked ORDER BY seq
"""


@dataclass(slots=True)
class _Watched:
    beat: int
    since: float


@dataclass(slots=True)
class Keeper:
    """Runs in the worker's parent process until `stop` is set."""

    dsn: dict[str, object]
    client: redis.Redis
    namespace: str
    stop: threading.Event
    _watched: dict[str, _Watched] = field(default_factory=dict)

    def run(self) -> None:
        """Keep until stopped; connections that break are made again."""
        while not self.stop.is_set():
            try:
                with psycopg.connect(**self.dsn, autocommit=True) as connection:  # type: ignore[arg-type]
                    self._keep(connection)
            except (psycopg.OperationalError, redis.RedisError) as error:
                logger.warning("the keeper lost its connection (%s); it tries again", error)
                self.stop.wait(TICK_S)

    def _keep(self, connection: psycopg.Connection) -> None:
        while not self.stop.is_set():
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", [KEEPER_LOCK]).fetchone()
            if row and row[0]:
                break
            self.stop.wait(TICK_S)
        while not self.stop.is_set():
            due_s = self.tick(connection)
            self.stop.wait(min(TICK_S, due_s))

    def tick(self, connection: psycopg.Connection) -> float:
        """Do what is due and return the seconds until the next run is."""
        self._push(self._promote(connection))
        self._push(self._return_dead(connection))
        self._push(self._missing(connection))
        row = connection.execute(_NEXT_DUE).fetchone()
        return TICK_S if row is None or row[0] is None else max(0.005, float(row[0]))

    def _promote(self, connection: psycopg.Connection) -> list[tuple[str, str]]:
        due = connection.execute(_PROMOTE).fetchall()
        return [(queue, run_id) for queue, run_id, blocked in due if not blocked]

    def _return_dead(self, connection: psycopg.Connection) -> list[tuple[str, str]]:
        dead = self._dead(connection)
        with connection.transaction():
            returned = connection.execute(_RETURN, [dead]).fetchall()
            connection.execute("DELETE FROM triggerkit.workers WHERE id = ANY (%s)", [dead])
            given_up = {(task, key) for _, _, status, task, key in returned if status == "crashed"}
            unblocked = self._unblock(connection, {(t, k) for t, k in given_up if k is not None})
        if dead:
            logger.warning("worker %s died; %d runs go on", ", ".join(dead), len(returned))
        queued = [(queue, run_id) for queue, run_id, status, *_ in returned if status == "queued"]
        return queued + unblocked

    @staticmethod
    def _unblock(
        connection: psycopg.Connection, keys: set[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        if not keys:
            return []
        tasks, names = zip(*sorted(keys), strict=True)
        connection.execute(LOCK_KEYS, [lock_names(list(keys))])
        rows = connection.execute(UNBLOCK, [list(tasks), list(names)]).fetchall()
        return [(queue, run_id) for queue, run_id, status in rows if status == "queued"]

    def _dead(self, connection: psycopg.Connection) -> list[str]:
        now = time.monotonic()
        query = "SELECT id, beat FROM triggerkit.workers"
        beats: dict[str, int] = dict(connection.execute(query).fetchall())
        for worker_id, beat in beats.items():
            watched = self._watched.get(worker_id)
            if watched is None or watched.beat != beat:
                self._watched[worker_id] = _Watched(beat, now)
        self._watched = {w: seen for w, seen in self._watched.items() if w in beats}
        return [w for w, seen in self._watched.items() if now - seen.since > LEASE_S]

    def _missing(self, connection: psycopg.Connection) -> list[tuple[str, str]]:
        """Runs that wait in Postgres for longer than a push takes and are not in Redis."""
        missing: list[tuple[str, str]] = []
        for queue, count in connection.execute(_WAITING, [SETTLING_S]).fetchall():
            key = queue_key(self.namespace, queue)
            if self.client.llen(key) >= count:
                continue
            there = set(self.client.lrange(key, 0, -1))
            waiting = connection.execute(_WAITING_IDS, [queue]).fetchall()
            missing += [(queue, run_id) for (run_id,) in waiting if run_id not in there]
        return missing

    def _push(self, runs: list[tuple[str, str]]) -> None:
        for queue, ids in grouped(runs).items():
            self.client.rpush(queue_key(self.namespace, queue), *ids)
