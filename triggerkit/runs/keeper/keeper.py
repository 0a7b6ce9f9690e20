"""The keeper: sends its worker's heartbeats, and looks for what is due, who is dead, and what was
lost.

Every worker's parent has one. All send heartbeats; one of them, by advisory lock, leads and looks
after the runs. It decides by Postgres's clock what is due, and by its own monotonic clock who is
dead. It asks once a second, and is woken by whoever cannot wait for that. What looks after the
runs, and what removes old ones, have threads and connections of their own beside the heartbeat's.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import class_row

from triggerkit.runs.breakers import name_probes
from triggerkit.runs.keeper.heartbeat import CANCELED, TICK_S, WorkerHeartbeat
from triggerkit.runs.keeper.leadership import Leadership
from triggerkit.runs.keeper.liveness import FailureDetector
from triggerkit.runs.keeper.local import started
from triggerkit.runs.keeper.processes import ExecutingProcesses
from triggerkit.runs.keeper.recover import (
    CHUNK,
    STRAY_AFTER_S,
    Moved,
    admit_pending,
    expire,
    promote,
    ready_among,
    return_runs,
    strays,
)
from triggerkit.runs.keeper.retention import Retention
from triggerkit.runs.keeper.rollups import roll_up
from triggerkit.runs.keys import NOW_RANK, READY
from triggerkit.runs.run import ReadyRun
from triggerkit.runs.schedules import DueSchedules
from triggerkit.runs.transitions import admit
from triggerkit.runs.transport.base import Transport, TransportAway
from triggerkit.state.connect import connect_blocking, cut_line
from triggerkit.state.threads import LastingThread

logger = logging.getLogger(__name__)

#: Seconds without a heartbeat after which a worker is dead.
LEASE_S = 8.0

#: The shortest time between two looks, in seconds, however much is due.
SHORTEST_TICK_S = 0.005

#: All there is to look at, in one statement, and a beat of the workers where one is due: the keeper
#: that leads costs an idle installation one query a tick. The beats come last and wait for no lock:
#: a look that takes long holds no worker's row meanwhile, and none holds it up. They change rows
#: that are there and make none, since a look may end after its worker has left. The tasks are found
#: by steps through the index, however many runs wait of each; and of a gate, whether one run waits
#: there: by EXISTS all that wait would be read.
_LOOK = f"""
WITH RECURSIVE waiting AS (
    (SELECT r.task, r.rank FROM triggerkit.runs r
     WHERE {READY} ORDER BY r.task, r.rank LIMIT 1)
    UNION ALL
    SELECT next.* FROM waiting, LATERAL (
        SELECT r.task, r.rank FROM triggerkit.runs r
        WHERE {READY} AND r.task > waiting.task ORDER BY r.task, r.rank LIMIT 1) AS next),
beat AS (
    UPDATE triggerkit.workers SET beat = beat + 1 WHERE id = ANY (ARRAY(
        SELECT id FROM triggerkit.workers WHERE id = ANY (%(ids)s) FOR UPDATE SKIP LOCKED))
    RETURNING id),
gated AS (
    SELECT q.name, CASE WHEN q.rate_limit IS NULL THEN 0 WHEN free.room <= 0 THEN {TICK_S}
        ELSE coalesce((
            SELECT extract(epoch FROM s.at - clock_timestamp())::float + q.rate_period_s
            FROM triggerkit.starts s WHERE s.queue = q.name ORDER BY s.at DESC
            OFFSET free.room - 1 LIMIT 1), 0) END AS due_s
    FROM triggerkit.queues q, LATERAL (
        SELECT q.rate_limit - count(*) AS room FROM triggerkit.runs o
        WHERE o.queue = q.name AND o.gate = 'open' AND o.status || '' = 'queued'
            AND q.rate_limit IS NOT NULL) AS free
    WHERE q.paused_at IS NULL AND (
        SELECT true FROM triggerkit.runs r WHERE r.queue = q.name AND r.status = 'queued'
            AND NOT r.blocked AND r.gate = 'held' LIMIT 1))
SELECT
    (SELECT extract(epoch FROM min(scheduled_at) - clock_timestamp())::float
     FROM triggerkit.runs WHERE status IN ('delayed', 'retrying')) AS due_s,
    (SELECT extract(epoch FROM min(expires_at) - clock_timestamp())::float
     FROM triggerkit.runs WHERE expires_at IS NOT NULL AND status IN ('delayed', 'queued')
        AND attempt = 0) AS expiring_s,
    (SELECT extract(epoch FROM min(next_at) - clock_timestamp())::float
     FROM triggerkit.schedules WHERE paused_at IS NULL) AS tick_s,
    (SELECT coalesce(jsonb_object_agg(name, due_s), '{{}}') FROM gated) AS gates,
    (SELECT coalesce(jsonb_object_agg(id, beat), '{{}}') FROM triggerkit.workers) AS heartbeats,
    (SELECT coalesce(jsonb_object_agg(id, ARRAY[pid, pid_started]), '{{}}') FROM triggerkit.workers
     WHERE home = %(home)s AND pid_started IS NOT NULL) AS neighbours,
    EXISTS (SELECT FROM triggerkit.runs WHERE status = 'executing'
        AND worker <> ALL (ARRAY(SELECT id FROM triggerkit.workers))) AS abandoned,
    EXISTS (SELECT FROM triggerkit.runs WHERE pending) AS pending,
    (SELECT extract(epoch FROM min(probe_at) - clock_timestamp())::float
     FROM triggerkit.breakers WHERE closed_at IS NULL) AS probe_s,
    (SELECT coalesce(jsonb_object_agg(task, rank), '{{}}') FROM waiting
     WHERE abs({NOW_RANK} - rank) > {int(STRAY_AFTER_S * 1e6)}
        AND task <> ALL (ARRAY(SELECT task FROM triggerkit.breakers WHERE closed_at IS NULL))
    ) AS waiting,
    {CANCELED} AS canceled,
    (SELECT count(*) FROM beat) AS beaten
"""  # noqa: S608 - of constants


class _Observation(NamedTuple):
    due_s: float | None
    expiring_s: float | None
    tick_s: float | None
    gates: Mapping[str, float]
    heartbeats: Mapping[str, int]
    neighbours: Mapping[str, list[int]]
    abandoned: bool
    pending: bool
    probe_s: float | None
    waiting: Mapping[str, int]
    canceled: Mapping[str, str]
    beaten: int


@dataclass(slots=True)
class Keeper:
    """Runs in the worker's parent process until `stop` is set."""

    dsn: dict[str, Any]
    transport: Transport
    processes: ExecutingProcesses
    stop: threading.Event
    retention: Retention
    lease_s: float = LEASE_S
    heartbeat: WorkerHeartbeat = field(init=False)
    _leadership: Leadership = field(default_factory=Leadership, init=False)
    _detector: FailureDetector = field(init=False)
    _schedules: DueSchedules = field(default_factory=DueSchedules, init=False)
    #: By task, the ready runs that the transport did not have at the last look.
    _missing: dict[str, frozenset[str]] = field(default_factory=dict)
    #: Those of the other threads.
    _connections: set[psycopg.Connection] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._detector = FailureDetector(self.lease_s)
        self.heartbeat = WorkerHeartbeat(
            self.dsn, self.processes, self._leadership, self._detector, self.stop
        )
        self.heartbeat.unanswered = self._unanswered

    def run(self) -> None:
        """Keep until stopped: beat on this thread, and do the rest on others."""
        threads = [
            LastingThread(self._look_after_runs, "keeper's looks", daemon=True),
            LastingThread(self._remove_old, "keeper's retention", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            self.heartbeat.run()
        finally:
            self._leadership.end()
            for thread in threads:
                thread.join()

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        with connect_blocking(self.dsn) as connection:
            self._connections.add(connection)
            try:
                yield connection
            finally:
                self._connections.discard(connection)

    def _unanswered(self) -> None:
        for connection in list(self._connections):
            cut_line(connection)

    def _look_after_runs(self) -> None:
        while self._leadership.wait_to_lead():
            try:
                with self._connected() as connection:
                    while self._leadership.leads:
                        wait_s = self.tick(connection, self._detector)
                        if named := self._leadership.wait(wait_s):
                            self._push(admit_pending(connection) + ready_among(connection, named))
            except psycopg.Error as error:
                logger.warning("due runs wait for Postgres (%s)", error)
                self._leadership.rest(TICK_S)

    def _remove_old(self) -> None:
        while self._leadership.wait_to_lead():
            try:
                with self._connected() as connection:
                    self.retention.apply(connection, lambda: not self._leadership.leads)
                    roll_up(connection, lambda: not self._leadership.leads)
            except psycopg.Error as error:
                logger.warning("cannot remove or roll up old runs (%s); trying again", error)
            # Soon after a minute has ended, so that its step is made.
            self._leadership.rest(min(self.retention.look_s, 61 - time.time() % 60))

    def tick(self, connection: psycopg.Connection, detector: FailureDetector) -> float:
        """Do what is to be done and return the seconds until the next look."""
        beating = self.heartbeat.along()
        given = {"home": self.processes.home, "ids": beating}
        with connection.cursor(row_factory=class_row(_Observation)) as cursor:
            [look] = cursor.execute(_LOOK, given).fetchall()
        if beating and look.beaten == len(beating):
            self.heartbeat.went_along(look.canceled)
        dead = detector.dead(look.heartbeats, time.monotonic())
        dead += [i for i, (pid, at) in look.neighbours.items() if started(pid) != at]
        if dead or look.abandoned:
            self._step(connection, lambda: return_runs(connection, dead))
        if look.pending:
            self._step(connection, lambda: admit_pending(connection))
        has_moved = self._move_due(connection, look)
        refilled = self._refill_all(connection, look.waiting)
        if has_moved or refilled == CHUNK:
            return SHORTEST_TICK_S
        # What is due and was not moved is held by somebody's transaction: it is looked at again.
        coming = [
            look.due_s,
            look.expiring_s,
            look.tick_s,
            look.probe_s,
            *look.gates.values(),
        ]
        return min([TICK_S, *(max(SHORTEST_TICK_S, s) for s in coming if s is not None and s > 0)])

    def _move_due(self, connection: psycopg.Connection, look: _Observation) -> bool:
        """Move on what is due; whether anything was."""
        if _is_due(look.tick_s):
            self._step(connection, lambda: self._schedules.make_due_runs(connection))
        moved: list[int] = []

        def moving(move: Callable[[psycopg.Connection], Moved]) -> list[ReadyRun]:
            count, ready = move(connection)
            moved.append(count)
            return ready

        if _is_due(look.due_s):
            self._step(connection, lambda: moving(promote))
        if _is_due(look.expiring_s):
            self._step(connection, lambda: moving(expire))
        if _is_due(look.probe_s):
            self._step(connection, lambda: name_probes(connection))
        if open_gates := {queue for queue, due_s in look.gates.items() if due_s <= 0}:
            self._step(connection, lambda: admit(connection, open_gates))
        return any(moved)

    def _step(self, connection: psycopg.Connection, step: Callable[[], list[ReadyRun]]) -> None:
        """Push what `step` makes ready. One that fails does not hold up the others."""
        try:
            self._push(step())
        except psycopg.Error as error:
            if connection.broken:
                raise
            logger.warning("a step of the keeper failed (%s); trying again at the next look", error)

    def _refill_all(self, connection: psycopg.Connection, waiting: Mapping[str, int]) -> int:
        """Push a chunk of what the transport lost of each task, of which `waiting` has the rank of
        the first ready run; the most that was pushed of one."""
        most = 0
        try:
            # All at once: where runs of a thousand tasks wait, most of them lack nothing.
            for task, first_rank in self.transport.first_ranks(list(waiting)).items():
                if waiting[task] < first_rank:
                    most = max(most, self._refill(connection, task, first_rank))
                else:
                    self._missing.pop(task, None)
        except TransportAway as error:
            logger.warning("cannot push runs (%s); they wait", error)
        return most

    def _refill(self, connection: psycopg.Connection, task: str, first_rank: float) -> int:
        missing = strays(connection, task, first_rank)
        # What is missing at one look may be being claimed; at the next one it is lost. Where the
        # transport has nothing, pushing too much costs nothing.
        before = self._missing.pop(task, frozenset())
        lost = missing if math.isinf(first_rank) else [run for run in missing if run.id in before]
        if len(lost) < len(missing):
            self._missing[task] = frozenset(run.id for run in missing)
        return len(lost) if self._push(lost) else 0

    def _push(self, runs: list[ReadyRun]) -> bool:
        return self.transport.push(runs)


def _is_due(seconds: float | None) -> bool:
    return seconds is not None and seconds <= 0
