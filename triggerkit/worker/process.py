"""The worker's processes: a parent that holds the lease and keeps, children that execute."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import Any

import dramatiq
import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry as RedisRetry

from triggerkit.runs.claim import RunClaims
from triggerkit.runs.keeper import Keeper
from triggerkit.runs.session import by_index
from triggerkit.settings import Settings
from triggerkit.state.connect import pinned
from triggerkit.worker.actor import declare_actor
from triggerkit.worker.broker import RunBroker
from triggerkit.worker.completions import Completions
from triggerkit.worker.event_loop import EventLoopThread
from triggerkit.worker.execute import Executor
from triggerkit.worker.intake import WAIT_S, Intake
from triggerkit.worker.task import Task

logger = logging.getLogger(__name__)

#: Seconds between two beats of a worker's parent; its lease is several of them.
BEAT_S = 1.0


def new_worker_id() -> str:
    """A name no other worker has: host, process and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{token_hex(3)}"


def redis_client(settings: Settings) -> redis.Redis:
    """A client whose blocking waits end before its socket's timeout, and that fails fast."""
    return redis.Redis.from_url(
        settings.broker_dsn,
        socket_timeout=WAIT_S + 2,
        socket_connect_timeout=2,
        retry=RedisRetry(NoBackoff(), 1),
        decode_responses=True,
        encoding_errors="replace",
    )


def execute_runs(
    settings: Settings,
    tasks: dict[str, Task[Any, Any]],
    *,
    worker_id: str,
    namespace: str,
    queues: Sequence[str],
    threads: int,
    ready: Callable[[], None],
    stop: threading.Event,
) -> None:
    """Execute runs in this process until `stop` is set; returns when all outcomes are written."""

    def open_claims() -> RunClaims:
        parameters: dict[str, Any] = pinned(by_index(settings.state_dsn), "triggerkit worker")
        connection = psycopg.connect(**parameters, autocommit=True)
        return RunClaims(connection, worker_id, list(tasks))

    client = redis_client(settings)
    completions = Completions(open_claims, client, namespace)
    intake = Intake(client, open_claims, queues, namespace=namespace, slots=threads)
    event_loop = EventLoopThread()
    broker = RunBroker(intake)
    for task in tasks.values():
        declare_actor(broker, task.name, Executor(task, event_loop.run), completions)
    worker = dramatiq.Worker(broker, worker_threads=threads)
    _prepare(tasks, event_loop)
    completions.start()
    worker.start()
    try:
        ready()
        stop.wait()
    finally:
        intake.drain()
        # Nothing is in hand any more: the threads are told to end and not waited for.
        worker.stop(timeout=0)
        completions.stop()
        event_loop.stop()
        intake.close()
        client.close()


def _prepare(tasks: dict[str, Task[Any, Any]], event_loop: EventLoopThread) -> None:
    """Open what the tasks need. What cannot be opened now is the first run's matter."""
    for prepare in dict.fromkeys(task.prepare for task in tasks.values() if task.prepare):
        try:
            opening = prepare()
            if inspect.iscoroutine(opening):
                event_loop.run(opening)
        except Exception as error:
            logger.warning("preparing a task failed: %s: %s", type(error).__name__, error)


class Lease:
    """The worker's row in the state: raised every second as long as this process lives."""

    def __init__(
        self, settings: Settings, worker_id: str, queues: Sequence[str], slots: int
    ) -> None:
        self._parameters: dict[str, Any] = pinned(settings.state_dsn, "triggerkit lease")
        self._row = [worker_id, socket.gethostname(), os.getpid(), list(queues), slots]
        #: Set once the row is there: a run claimed before would count as a dead worker's.
        self.held = threading.Event()

    def hold(self, stop: threading.Event) -> None:
        """Beat until `stop`, through losses of the connection; then remove the row."""
        while not stop.is_set():
            try:
                with psycopg.connect(**self._parameters, autocommit=True) as connection:
                    self._beat(connection, stop)
            except psycopg.Error as error:
                logger.warning("the worker's lease waits for Postgres (%s)", error)
                stop.wait(BEAT_S)

    def _beat(self, connection: psycopg.Connection, stop: threading.Event) -> None:
        while not stop.is_set():
            connection.execute(
                "INSERT INTO triggerkit.workers (id, hostname, pid, queues, slots) "
                "VALUES (%s, %s, %s, %s, %s) "
                "ON CONFLICT (id) DO UPDATE SET beat = workers.beat + 1",
                self._row,
            )
            self.held.set()
            stop.wait(BEAT_S)
        connection.execute("DELETE FROM triggerkit.workers WHERE id = %s", self._row[:1])


def keep(
    settings: Settings, namespace: str, lease: Lease, stop: threading.Event
) -> list[threading.Thread]:
    """Start the parent's threads: the lease and the keeper."""
    keeper = Keeper(
        pinned(by_index(settings.state_dsn), "triggerkit keeper"),
        redis_client(settings),
        namespace,
        stop,
    )
    threads = [
        threading.Thread(target=lease.hold, args=[stop], name="lease"),
        threading.Thread(target=keeper.run, name="keeper"),
    ]
    for thread in threads:
        thread.start()
    return threads


def stop_on_signals(stop: threading.Event) -> None:
    """Set `stop` on SIGINT and SIGTERM; a second signal ends the process at once."""

    def handle(number: int, frame: object) -> None:  # noqa: ARG001
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):
            signal.signal(number, handle)
