"""The heartbeat: holds the leases of a worker's processes, and tries to lead.

It has a thread and a connection of its own: nothing else that a keeper does can cost a lease. While
the keeper leads, its looks beat as well, and the heartbeat sends what a look did not.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import class_row

from triggerkit.runs.keeper.leadership import Leadership
from triggerkit.runs.keeper.liveness import FailureDetector
from triggerkit.runs.keeper.processes import ExecutingProcesses
from triggerkit.runs.run import is_run_id
from triggerkit.state.channels import KEEPER
from triggerkit.state.connect import connect_blocking, cut_line

logger = logging.getLogger(__name__)

#: Advisory lock of the keeper that leads.
KEEPER_LOCK = 0x74726B_02

#: Seconds between two heartbeats.
TICK_S = 1.0

#: Seconds after a beat at which a look of the keeper's beats again, and, while it leads, at which
#: the heartbeat does since no look has.
ALONG_S = 0.5
OVERDUE_S = 1.25

#: Seconds in which a beat is answered. A server that hangs, and a line that a proxy keeps up, say
#: nothing: without a limit the heartbeat would wait for ever, and be taken for stuck.
ANSWER_S = 20.0

#: What is to be canceled of what the processes execute.
CANCELED = """
(SELECT coalesce(jsonb_object_agg(id, worker), '{}') FROM triggerkit.runs
 WHERE status = 'executing' AND worker = ANY (%(ids)s) AND cancel_requested_at IS NOT NULL)
"""

#: Beats, tells what is to be canceled, and whether this keeper leads.
_BEAT = f"""
WITH beat AS (
    INSERT INTO triggerkit.workers (id, hostname, pid, parent_pid, home, pid_started, backend,
        queues, slots, async_slots, stopping)
    SELECT m.id, %(hostname)s, m.pid, %(parent_pid)s, %(home)s, m.started, pg_backend_pid(),
        string_to_array(m.queues, ','), m.slots, m.async_slots, %(stopping)s
    FROM unnest(%(ids)s::text[], %(pids)s::int[], %(started)s::bigint[], %(queues)s::text[],
        %(slots)s::int[], %(async_slots)s::int[])
        AS m (id, pid, started, queues, slots, async_slots)
    ON CONFLICT (id) DO UPDATE SET beat = workers.beat + 1, backend = excluded.backend,
        stopping = excluded.stopping)
SELECT {CANCELED} AS canceled,
    (SELECT coalesce(jsonb_object_agg(id, beat), '{{}}') FROM triggerkit.workers) AS heartbeats,
    %(leads)s OR pg_try_advisory_lock({KEEPER_LOCK}) AS leads
"""  # noqa: S608 - of constants

#: Nothing is executed here any more. What was cut short keeps its worker's row: that tells why.
_LEAVE = """
DELETE FROM triggerkit.workers w WHERE id = ANY (%s) AND NOT EXISTS (
    SELECT FROM triggerkit.runs r WHERE r.worker = w.id AND r.status = 'executing')
"""

#: Ends the connection of a keeper that leads and is silent: stopped, it would keep the lock.
_UNSEAT = f"""
SELECT pg_terminate_backend(l.pid) FROM pg_locks l
WHERE l.locktype = 'advisory' AND l.classid = 0 AND l.objid = {KEEPER_LOCK} AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.pid IN (SELECT backend FROM triggerkit.workers WHERE id = ANY (%s))
"""  # noqa: S608 - of constants


class _BeatAnswer(NamedTuple):
    canceled: Mapping[str, str]
    heartbeats: Mapping[str, int]
    leads: bool


@dataclass(slots=True)
class WorkerHeartbeat:
    """Runs in the worker's parent process until `stop` is set."""

    dsn: dict[str, Any]
    processes: ExecutingProcesses
    leadership: Leadership
    detector: FailureDetector
    stop: threading.Event
    #: Called at each turn, also while Postgres is away.
    turned: Callable[[], None] = lambda: None
    #: Called when a beat is not answered: what else waits for Postgres, waits in vain.
    unanswered: Callable[[], None] = lambda: None
    _leads: bool = field(default=False, init=False)
    #: When the last beat was answered, and when the last one failed (monotonic seconds).
    _beaten_at: float = field(default=0.0, init=False)
    _failed_at: float = field(default=0.0, init=False)

    def run(self) -> None:
        """Beat until stopped; connections that break are made again."""
        while not self.stop.is_set():
            self.turned()
            try:
                with connect_blocking(self.dsn) as connection:
                    self._keep(connection)
            except psycopg.Error as error:
                # While Postgres was away, no worker could send a heartbeat.
                self.detector.begin_anew()
                logger.warning("the worker's lease waits for Postgres (%s)", error)
                self.stop.wait(TICK_S)
            except Exception:
                # Whatever it is: without a heartbeat the worker would go on without a lease.
                logger.exception("the heartbeat failed; restarting it")
                self.stop.wait(TICK_S)

    def beat(self, connection: psycopg.Connection) -> bool:
        """Beat, and try to lead; whether this keeper leads now."""
        gone = self.processes.gone()
        if gone:
            # Those that died lose their lease at once.
            connection.execute("DELETE FROM triggerkit.workers WHERE id = ANY (%s)", [gone])
        rows = {**self.processes.rows(), "leads": self._leads}
        with connection.cursor(row_factory=class_row(_BeatAnswer)) as cursor:
            [seen] = cursor.execute(_BEAT, rows).fetchall()
        self._beaten_at = time.monotonic()
        self.processes.hold(rows["ids"])
        self._cancel(seen.canceled)
        # Who does not lead watches too, so that who takes over knows what the one before it knew.
        dead = self.detector.dead(seen.heartbeats, time.monotonic())
        if dead and not seen.leads:
            connection.execute(_UNSEAT, [dead])
        self._leads = seen.leads
        self.leadership.set(seen.leads)
        if gone:
            self.leadership.wake()
        return seen.leads

    def along(self) -> list[str]:
        """Return whose beats are to go along with a look of the keeper's: nobody's, while the last
        ones are recent."""
        if time.monotonic() < self._beaten_at + ALONG_S:
            return []
        ids: list[str] = self.processes.rows()["ids"]
        return ids

    def went_along(self, canceled: Mapping[str, str]) -> None:
        """Note that a look has beaten for all processes, and take in what is to be canceled."""
        self._beaten_at = time.monotonic()
        self._cancel(canceled)

    def _cancel(self, canceled: Mapping[str, str]) -> None:
        for run_id, worker_id in canceled.items():
            self.processes.cancel(run_id, worker_id)

    def _keep(self, connection: psycopg.Connection) -> None:
        self._leads = False
        connection.execute(f"LISTEN {KEEPER}")
        try:
            while not self.stop.is_set():
                self.turned()
                self._try_to_beat(connection)
                self._wait(connection)
        finally:
            self.leadership.set(False)
        ids = [*self.processes.rows()["ids"], *self.processes.gone()]
        connection.execute(_LEAVE, [ids])

    def _try_to_beat(self, connection: psycopg.Connection) -> None:
        """Beat. A statement that fails is tried again: what is known of others stays known."""
        timer = threading.Timer(ANSWER_S, self._cut, [connection])
        timer.daemon = True
        timer.start()
        try:
            self.beat(connection)
        except psycopg.Error as error:
            if connection.broken:
                raise
            logger.warning("a heartbeat failed (%s); the next one will follow", error)
            self._failed_at = time.monotonic()
        finally:
            timer.cancel()

    def _cut(self, connection: psycopg.Connection) -> None:
        logger.warning("Postgres does not answer to a heartbeat; connecting anew")
        cut_line(connection)
        self.unanswered()

    def _wait(self, connection: psycopg.Connection) -> None:
        """Wait until a heartbeat is due, or until woken; pass on who is to be pushed."""
        readable: list[int] = []
        while not readable and (wait_s := self._due_in_s()) > 0:
            readable, _, _ = select.select(
                [connection.fileno(), self.processes.fileno()], [], [], wait_s
            )
        if self.processes.fileno() in readable:
            self.processes.drain()
        if connection.fileno() in readable:
            self.leadership.wake(_named(connection))

    def _due_in_s(self) -> float:
        due_s = OVERDUE_S if self._leads else TICK_S
        return max(self._beaten_at + due_s, self._failed_at + TICK_S) - time.monotonic()


def _named(connection: psycopg.Connection) -> Sequence[str]:
    told = connection.notifies(timeout=0)
    return [i for notify in told for i in notify.payload.split(",") if is_run_id(i)]
