"""The keeper: sends its worker's heartbeats, and looks for what is due, who is dead, and what was
lost.

Every worker's parent has one. All send heartbeats; one of them, by advisory lock, leads and looks
after the runs. It decides by Postgres's clock what is due, and by its own monotonic clock who is
dead. It asks once a second, and can be woken sooner.
"""

from __future__ import annotations

import logging
import math
import select
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import class_row

from triggerkit.runs.breakers import name_probes
from triggerkit.runs.keeper.liveness import FailureDetector
from triggerkit.runs.keeper.local import started
from triggerkit.runs.keeper.processes import ExecutingProcesses
from triggerkit.runs.keeper.recover import (
    CHUNK,
    STRAY_AFTER_S,
    admit_pending,
    expire,
    promote,
    ready_among,
    return_runs,
    strays,
)
from triggerkit.runs.keeper.retention import Retention
from triggerkit.runs.keys import NOW_RANK, READY
from triggerkit.runs.run import ReadyRun, is_run_id
from triggerkit.runs.schedules import make_due_runs
from triggerkit.runs.transitions import admit
from triggerkit.runs.transport.base import Transport, TransportAway
from triggerkit.state.channels import KEEPER

logger = logging.getLogger(__name__)

#: Advisory lock of the keeper that leads.
KEEPER_LOCK = 0x74726B_02

#: Seconds between two looks, and seconds without a heartbeat after which a worker is dead.
TICK_S = 1.0
LEASE_S = 8.0

#: The shortest time between two looks, in seconds, however much is due.
SHORTEST_TICK_S = 0.005

#: Beats, and tells what is to be canceled. `leads`: whether this keeper looks after the runs.
_BEAT = """
beat AS (
    INSERT INTO triggerkit.workers (id, hostname, pid, parent_pid, home, pid_started, backend,
        queues, slots, async_slots)
    SELECT m.id, %(hostname)s, m.pid, %(parent_pid)s, %(home)s, m.started, pg_backend_pid(),
        string_to_array(m.queues, ','), m.slots, m.async_slots
    FROM unnest(%(ids)s::text[], %(pids)s::int[], %(started)s::bigint[], %(queues)s::text[],
        %(slots)s::int[], %(async_slots)s::int[])
        AS m (id, pid, started, queues, slots, async_slots)
    ON CONFLICT (id) DO UPDATE SET beat = workers.beat + 1, backend = excluded.backend),
workers AS (
    SELECT coalesce(jsonb_object_agg(id, beat), '{}') AS heartbeats,
        coalesce(jsonb_object_agg(id, ARRAY[pid, pid_started])
            FILTER (WHERE home = %(home)s AND pid_started IS NOT NULL), '{}') AS neighbours
    FROM triggerkit.workers),
canceled AS (
    SELECT coalesce(jsonb_object_agg(id, worker), '{}') AS runs FROM triggerkit.runs
    WHERE status = 'executing' AND worker = ANY (%(ids)s) AND cancel_requested_at IS NOT NULL)
"""

_FOLLOW = f"""
WITH {_BEAT}
SELECT canceled.runs AS canceled, workers.heartbeats, pg_try_advisory_lock({KEEPER_LOCK}) AS leads
FROM canceled, workers
"""  # noqa: S608 - of constants

#: Ends the connection of a keeper that leads and is silent: stopped, it would keep the lock.
_UNSEAT = f"""
SELECT pg_terminate_backend(l.pid) FROM pg_locks l
WHERE l.locktype = 'advisory' AND l.classid = 0 AND l.objid = {KEEPER_LOCK} AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.pid IN (SELECT backend FROM triggerkit.workers WHERE id = ANY (%s))
"""  # noqa: S608 - of constants

#: All there is to look at, in one statement: an idle installation costs one query a tick. The tasks
#: are found by steps through the index, however many runs wait of each; and of a gate, whether one
#: run waits there: by EXISTS all that wait would be read.
_LOOK = f"""
WITH RECURSIVE {_BEAT},
waiting AS (
    (SELECT r.task, r.rank FROM triggerkit.runs r
     WHERE {READY} ORDER BY r.task, r.rank LIMIT 1)
    UNION ALL
    SELECT next.* FROM waiting, LATERAL (
        SELECT r.task, r.rank FROM triggerkit.runs r
        WHERE {READY} AND r.task > waiting.task ORDER BY r.task, r.rank LIMIT 1) AS next),
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
    (SELECT runs FROM canceled) AS canceled,
    (SELECT extract(epoch FROM min(scheduled_at) - clock_timestamp())::float
     FROM triggerkit.runs WHERE status IN ('delayed', 'retrying')) AS due_s,
    (SELECT extract(epoch FROM min(expires_at) - clock_timestamp())::float
     FROM triggerkit.runs WHERE expires_at IS NOT NULL AND status IN ('delayed', 'queued')
        AND attempt = 0) AS expiring_s,
    (SELECT extract(epoch FROM min(next_at) - clock_timestamp())::float
     FROM triggerkit.schedules WHERE paused_at IS NULL) AS tick_s,
    (SELECT coalesce(jsonb_object_agg(name, due_s), '{{}}') FROM gated) AS gates,
    (SELECT heartbeats FROM workers) AS heartbeats,
    (SELECT neighbours FROM workers) AS neighbours,
    EXISTS (SELECT FROM triggerkit.runs WHERE status = 'executing'
        AND worker <> ALL (ARRAY(SELECT id FROM triggerkit.workers))) AS abandoned,
    EXISTS (SELECT FROM triggerkit.runs WHERE pending) AS pending,
    (SELECT extract(epoch FROM min(probe_at) - clock_timestamp())::float
     FROM triggerkit.breakers WHERE closed_at IS NULL) AS probe_s,
    ARRAY(SELECT task FROM waiting WHERE abs({NOW_RANK} - rank) > {int(STRAY_AFTER_S * 1e6)}
        AND task <> ALL (ARRAY(SELECT task FROM triggerkit.breakers WHERE closed_at IS NULL))
    ) AS tasks
"""  # noqa: S608 - of constants


class _Follow(NamedTuple):
    canceled: Mapping[str, str]
    heartbeats: Mapping[str, int]
    leads: bool


class _Observation(NamedTuple):
    canceled: Mapping[str, str]
    due_s: float | None
    expiring_s: float | None
    tick_s: float | None
    gates: Mapping[str, float]
    heartbeats: Mapping[str, int]
    neighbours: Mapping[str, list[int]]
    abandoned: bool
    pending: bool
    probe_s: float | None
    tasks: list[str]


@dataclass(slots=True)
class Keeper:
    """Runs in the worker's parent process until `stop` is set."""

    dsn: dict[str, Any]
    transport: Transport
    processes: ExecutingProcesses
    stop: threading.Event
    retention: Retention
    lease_s: float = LEASE_S
    #: By task, the ready runs that the transport did not have at the last look.
    _missing: dict[str, frozenset[str]] = field(default_factory=dict)

    def run(self) -> None:
        """Keep until stopped; connections that break are made again."""
        while not self.stop.is_set():
            try:
                with psycopg.connect(**self.dsn, autocommit=True) as connection:
                    connection.execute(f"LISTEN {KEEPER}")
                    self._keep(connection)
                    self._remove(connection)
            except psycopg.Error as error:
                logger.warning("the worker's lease waits for Postgres (%s)", error)
                self.stop.wait(TICK_S)
            except Exception:
                # Whatever it is: without a keeper the worker would go on without a lease.
                logger.exception("the keeper failed; it begins anew")
                self.stop.wait(TICK_S)

    def _keep(self, connection: psycopg.Connection) -> None:
        # A detector for each connection: while Postgres was away, no worker could send a
        # heartbeat. Who does not lead watches too, so that who takes over knows what the one
        # before it knew.
        detector = FailureDetector(self.lease_s)
        leads = False
        while not self.stop.is_set():
            if leads:
                wait_s = self.tick(connection, detector)
            else:
                leads = self._follow(connection, detector)
                wait_s = 0.0 if leads else TICK_S
            pushed = self._wait(connection, wait_s)
            if leads and pushed:
                self._push(admit_pending(connection) + ready_among(connection, pushed))

    def _follow(self, connection: psycopg.Connection, detector: FailureDetector) -> bool:
        """Beat, and try to lead."""
        self._forget(connection)
        rows = self.processes.rows()
        with connection.cursor(row_factory=class_row(_Follow)) as cursor:
            [seen] = cursor.execute(_FOLLOW, rows).fetchall()
        self._beaten(rows["ids"], seen.canceled)
        if dead := detector.dead(seen.heartbeats, time.monotonic()):
            connection.execute(_UNSEAT, [dead])
        return seen.leads

    def tick(self, connection: psycopg.Connection, detector: FailureDetector) -> float:
        """Do what is to be done and return the seconds until the next look."""
        self._forget(connection)
        rows = self.processes.rows()
        with connection.cursor(row_factory=class_row(_Observation)) as cursor:
            [look] = cursor.execute(_LOOK, rows).fetchall()
        self._beaten(rows["ids"], look.canceled)
        dead = detector.dead(look.heartbeats, time.monotonic())
        dead += [i for i, (pid, at) in look.neighbours.items() if started(pid) != at]
        if dead or look.abandoned:
            self._push(return_runs(connection, dead))
        if look.pending:
            self._push(admit_pending(connection))
        has_moved = self._move_due(connection, look)
        refilled = self._refill_all(connection, look.tasks)
        self.retention.apply(connection)
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
        count = 0
        if _is_due(look.tick_s):
            self._push(make_due_runs(connection))
        for due_s, move in ((look.due_s, promote), (look.expiring_s, expire)):
            if _is_due(due_s):
                moved = move(connection)
                self._push(moved.ready)
                count += moved.moved
        if _is_due(look.probe_s):
            self._push(name_probes(connection))
        if open_gates := {queue for queue, due_s in look.gates.items() if due_s <= 0}:
            self._push(admit(connection, open_gates))
        return count > 0

    def _forget(self, connection: psycopg.Connection) -> None:
        """Processes that died lose their lease at once."""
        if gone := self.processes.gone():
            connection.execute("DELETE FROM triggerkit.workers WHERE id = ANY (%s)", [gone])

    def _beaten(self, worker_ids: Sequence[str], canceled: Mapping[str, str]) -> None:
        self.processes.hold(worker_ids)
        for run_id, worker_id in canceled.items():
            self.processes.cancel(run_id, worker_id)

    def _remove(self, connection: psycopg.Connection) -> None:
        """On the way out: nothing is executed here any more."""
        ids = [*self.processes.rows()["ids"], *self.processes.gone()]
        connection.execute("DELETE FROM triggerkit.workers WHERE id = ANY (%s)", [ids])

    def _wait(self, connection: psycopg.Connection, seconds: float) -> list[str]:
        """Wait so long, or until woken; the ids of runs that are to be pushed."""
        readable, _, _ = select.select(
            [connection.fileno(), self.processes.fileno()], [], [], seconds
        )
        if self.processes.fileno() in readable:
            self.processes.drain()
        if connection.fileno() not in readable:
            return []
        notifications = connection.notifies(timeout=0)
        return [i for notify in notifications for i in notify.payload.split(",") if is_run_id(i)]

    def _refill_all(self, connection: psycopg.Connection, tasks: Sequence[str]) -> int:
        """Push a chunk of what the transport lost of each task; the most that was pushed of one."""
        most = 0
        for task in tasks:
            try:
                most = max(most, self._refill(connection, task))
            except TransportAway as error:
                # One that does not answer is not asked for each task: others wait for this look.
                logger.warning("no runs can be pushed (%s); they wait", error)
                break
        return most

    def _refill(self, connection: psycopg.Connection, task: str) -> int:
        first_rank = self.transport.first_rank(task)
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
