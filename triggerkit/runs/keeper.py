"""The keeper: looks every second for what is due, who is dead, and what Redis lost.

One process keeps at a time, by advisory lock. It decides by Postgres's clock what is due, and by
its own monotonic clock who is dead.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
import redis
from psycopg.rows import class_row

from triggerkit.runs.queue import push, queue_key
from triggerkit.runs.recover import CHUNK, SETTLING_S, promote, return_runs, strays
from triggerkit.runs.run import is_run_id
from triggerkit.runs.watch import Watch

logger = logging.getLogger(__name__)

#: Advisory lock of the keeper.
KEEPER_LOCK = 0x74726B_02

#: Seconds between two looks, and seconds without a beat after which a worker is dead.
TICK_S = 1.0
LEASE_S = 8.0

#: The shortest time between two looks, in seconds, however much is due.
SHORTEST_TICK_S = 0.005

#: How many of a queue's first ids in Redis tell how old its oldest run there is.
HEAD = 20

#: All there is to look at, in one statement: an idle installation costs one query a tick. The
#: queues are found by steps through the index, however many runs wait in each.
_LOOK = """
WITH RECURSIVE waiting AS (
    (SELECT queue, queued_at FROM triggerkit.runs WHERE status = 'queued' AND NOT blocked
     ORDER BY queue, queued_at LIMIT 1)
    UNION ALL
    SELECT oldest.* FROM waiting, LATERAL (
        SELECT queue, queued_at FROM triggerkit.runs
        WHERE status = 'queued' AND NOT blocked AND queue > waiting.queue
        ORDER BY queue, queued_at LIMIT 1) AS oldest)
SELECT
    (SELECT extract(epoch FROM min(scheduled_at) - clock_timestamp())::float
     FROM triggerkit.runs WHERE status IN ('delayed', 'retrying')) AS due_s,
    (SELECT coalesce(jsonb_object_agg(id, beat), '{}') FROM triggerkit.workers) AS beats,
    EXISTS (SELECT FROM triggerkit.runs WHERE status = 'executing'
        AND worker <> ALL (ARRAY(SELECT id FROM triggerkit.workers))) AS abandoned,
    ARRAY(SELECT queue FROM waiting
          WHERE queued_at < clock_timestamp() - %s * interval '1 second') AS queues
"""


class _Look(NamedTuple):
    due_s: float | None
    beats: dict[str, int]
    abandoned: bool
    queues: list[str]


@dataclass(slots=True)
class Keeper:
    """Runs in the worker's parent process until `stop` is set."""

    dsn: dict[str, Any]
    client: redis.Redis
    namespace: str
    stop: threading.Event
    lease_s: float = LEASE_S

    def run(self) -> None:
        """Keep until stopped; connections that break are made again."""
        while not self.stop.is_set():
            try:
                with psycopg.connect(**self.dsn, autocommit=True) as connection:
                    self._keep(connection)
            except psycopg.Error as error:
                logger.warning("the keeper lost its connection (%s); it tries again", error)
                self.stop.wait(TICK_S)

    def _keep(self, connection: psycopg.Connection) -> None:
        while not self._leads(connection):
            if self.stop.wait(TICK_S):
                return
        # A watch of its own for each connection: while Postgres was away, no worker could beat.
        watch = Watch(self.lease_s)
        while not self.stop.is_set():
            self.stop.wait(self.tick(connection, watch))

    @staticmethod
    def _leads(connection: psycopg.Connection) -> bool:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", [KEEPER_LOCK]).fetchone()
        return row is not None and bool(row[0])

    def tick(self, connection: psycopg.Connection, watch: Watch) -> float:
        """Do what is to be done and return the seconds until the next look."""
        with connection.cursor(row_factory=class_row(_Look)) as cursor:
            [look] = cursor.execute(_LOOK, [SETTLING_S]).fetchall()
        dead = watch.dead(look.beats, time.monotonic())
        if dead or look.abandoned:
            self._push(return_runs(connection, dead))
        if look.due_s is not None and look.due_s <= 0:
            self._push(promote(connection))
        refilled = [self._refill(connection, queue) for queue in look.queues]
        if CHUNK in refilled:
            return SHORTEST_TICK_S
        return TICK_S if look.due_s is None else min(TICK_S, max(SHORTEST_TICK_S, look.due_s))

    def _refill(self, connection: psycopg.Connection, queue: str) -> int:
        """Push a chunk of what Redis lost of `queue`; returns how many were pushed."""
        head = self._head(queue)
        lost = [] if head is None else strays(connection, queue, head)
        return len(lost) if self._push(lost) else 0

    def _head(self, queue: str) -> list[str] | None:
        """The first ids in Redis; None when Redis is away, or what is there are no ids."""
        try:
            first: Any = self.client.lrange(queue_key(self.namespace, queue), 0, HEAD - 1)
        except redis.RedisError as error:
            logger.warning("Redis is away (%s); the runs of %s wait", error, queue)
            return None
        ids = [run_id for run_id in first if is_run_id(run_id)]
        return ids if ids or not first else None

    def _push(self, runs: list[tuple[str, str]]) -> bool:
        return push(self.client, self.namespace, runs)
