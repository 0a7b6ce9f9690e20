"""A process that executes runs: what it consists of, and how it starts and ends."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import dramatiq
import psycopg

from triggerkit.errors import text_of
from triggerkit.runs.claim import RunClaims
from triggerkit.runs.session import by_index
from triggerkit.runs.transport.open import open_transport
from triggerkit.settings import Settings
from triggerkit.state.connect import connect_blocking, pinned
from triggerkit.tasks.function import check_result
from triggerkit.tasks.task import Task
from triggerkit.worker.attempts import Attempts
from triggerkit.worker.broker import RunBroker, RunConsumer
from triggerkit.worker.completions import Completions
from triggerkit.worker.coroutines import Coroutines
from triggerkit.worker.event_loop import EventLoopThread
from triggerkit.worker.execute import Executor, awaited
from triggerkit.worker.fetch.fetcher import Fetcher
from triggerkit.worker.fetch.slots import Slots
from triggerkit.worker.fetch.solitude import Solitude
from triggerkit.worker.telemetry.journal import Journal
from triggerkit.worker.telemetry.notes import RunNotes

logger = logging.getLogger(__name__)

#: Milliseconds after which an idle thread of Dramatiq looks around; a turn wakes it at once.
IDLE_MS = 10_000

#: The signals that stop a worker, and what they do in other programs.
_STOPPING: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}

#: Numbers the signals that have come.
_signals = itertools.count()

#: Tells which tasks a worker knows.
_KNOWS = """
UPDATE triggerkit.workers SET tasks = %s, queues = %s, version = %s WHERE id = %s
"""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """A process of a worker: its name, its installation, and what it takes.

    `slots` and `async_slots` bound how many runs of sync and of async tasks it executes at once.
    """

    worker_id: str
    namespace: str
    slots: int
    async_slots: int
    version: str | None = None


def new_worker_id() -> str:
    """Return a name no other worker has: host, process and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{token_hex(3)}"


class Worker:
    """Executes runs in this process, from `start` to `stop`."""

    def __init__(
        self,
        settings: Settings,
        tasks: dict[str, Task[Any, Any, Any]],
        config: WorkerConfig,
        replace: Callable[[], None],
    ) -> None:
        """`replace` is called when the process has to be replaced."""
        self._settings = settings
        self._tasks = tasks
        self._config = config
        self._transport = open_transport(settings, config.namespace)
        self._event_loop = EventLoopThread()
        self._journal = Journal(self._connect)
        self._notes = RunNotes(self._journal, self._connect)
        self._completions = Completions(self._open_claims, self._transport, self._notes.wait_for)
        slots, async_slots = Slots(config.slots), Slots(config.async_slots)
        executors = {
            task.name: (
                task,
                Executor(
                    task,
                    self._notes,
                    self._event_loop.run,
                    async_slots if task.is_async else slots,
                ),
            )
            for task in tasks.values()
        }
        self._attempts = Attempts(executors, self._completions, self._journal, replace)
        self._solitude = Solitude(slots, async_slots)
        self._attempts.ended = self._solitude.end
        self._attempts.abandoned = lambda attempt: (
            async_slots if tasks[attempt.run.task].is_async else slots
        ).release()
        self._threads = self._make_threads(slots)
        self._coroutines = self._make_coroutines(async_slots)

    def prepare(self) -> None:
        """Open what the tasks need."""
        _prepare(self._tasks, self._event_loop)

    def start(self) -> None:
        """Start all that a run needs; it takes none yet."""
        self._completions.start()
        self._journal.start()
        self._notes.start()
        watchdog = self._attempts.watchdog
        watchdog.watch_loop(self._event_loop.loop, self._event_loop.thread_id)
        watchdog.start()
        self._tell_tasks()

    def take(self) -> None:
        """Take runs."""
        if self._threads is not None:
            self._threads.worker.start()
        if self._coroutines is not None:
            self._coroutines.start()

    def cancel(self, run_id: str) -> None:
        """Cancel a run that executes here."""
        self._attempts.watchdog.cancel(run_id)

    def stop(self) -> None:
        """Take no more runs; returns when those that execute have their outcomes written."""
        self._attempts.watchdog.hand_back_waiting()
        if self._coroutines is not None:
            self._coroutines.drain()
        if self._threads is not None:
            self._threads.drain()
        self._attempts.watchdog.stop()
        self._completions.stop()
        self._journal.stop()
        self._event_loop.stop()
        self._notes.stop()
        self._transport.close()

    def _make_threads(self, slots: Slots) -> _Threads | None:
        names = [task.name for task in self._tasks.values() if not task.is_async]
        if not names:
            return None
        fetcher = Fetcher(
            self._transport.source(names),
            self._open_claims,
            slots,
            self._attempts.durations,
            self._solitude,
        )
        broker = RunBroker(fetcher, slots, self._attempts, self._transport.push)
        worker = dramatiq.Worker(broker, worker_threads=self._config.slots, worker_timeout=IDLE_MS)
        slots.more = worker._add_worker
        return _Threads(worker, fetcher, broker.consumer)

    def _make_coroutines(self, slots: Slots) -> Coroutines | None:
        names = [task.name for task in self._tasks.values() if task.is_async]
        if not names:
            return None
        fetcher = Fetcher(
            self._transport.source(names), self._open_claims, slots, solitude=self._solitude
        )
        return Coroutines(fetcher, slots, self._attempts, self._event_loop)

    def _open_claims(self) -> RunClaims:
        config = self._config
        return RunClaims(self._connect(), config.worker_id, list(self._tasks), config.version)

    def _connect(self) -> psycopg.Connection:
        parameters: dict[str, Any] = pinned(by_index(self._settings.state_dsn), "triggerkit worker")
        return connect_blocking(parameters)

    def _tell_tasks(self) -> None:
        queues = sorted({task.queue for task in self._tasks.values()})
        with self._connect() as connection:
            connection.execute(
                _KNOWS, [sorted(self._tasks), queues, self._config.version, self._config.worker_id]
            )


@dataclass(slots=True)
class _Threads:
    """Dramatiq's worker and what it takes runs from."""

    worker: dramatiq.Worker
    fetcher: Fetcher
    consumer: RunConsumer

    def drain(self) -> None:
        """Take nothing more, and wait until what was claimed is done."""
        self.consumer.drain()
        # Nothing is in hand any more: the threads are told to end and not waited for.
        self.worker.stop(timeout=0)
        self.fetcher.close()


def execute_runs(
    settings: Settings,
    tasks: dict[str, Task[Any, Any, Any]],
    config: WorkerConfig,
    *,
    ready: Callable[[Worker], None],
    stop: threading.Event,
    begin: Callable[[], object] = lambda: None,
    on_stuck: Callable[[], object] = lambda: None,
) -> bool:
    """Execute runs in this process until `stop` is set; returns when all outcomes are written.

    `begin` is called once what may hang has not, and `ready` before the first run is taken: one
    that kills the process must find a parent that replaces it.
    Returns whether the process has to be replaced: code of a run does not end in it. `on_stuck` is
    called when that is known, and the process stops.
    """
    is_stuck = threading.Event()

    def replace() -> None:
        is_stuck.set()
        stop.set()
        on_stuck()

    worker = Worker(settings, tasks, config, replace)
    worker.prepare()
    begin()
    worker.start()
    try:
        ready(worker)
        worker.take()
        stop.wait()
    finally:
        worker.stop()
    return is_stuck.is_set()


def _prepare(tasks: dict[str, Task[Any, Any, Any]], event_loop: EventLoopThread) -> None:
    """Open what the tasks need. What cannot be opened now is the first run's matter."""
    for prepare in dict.fromkeys(task.prepare for task in tasks.values() if task.prepare):
        try:
            opening = prepare()
            if inspect.isawaitable(opening):
                opening = event_loop.run(awaited(opening))
            check_result(opening)
        except Exception as error:
            logger.warning("preparing a task failed: %s: %s", type(error).__name__, text_of(error))


def stop_on_signals(stop: threading.Event, begun: threading.Event | None = None) -> None:
    """Set `stop` on SIGINT and SIGTERM; a second signal ends the process at once, and so does the
    first one before it has `begun`.

    What is forked from here, by a task too, ends by these signals as any program does.
    """

    def handle(number: int, frame: object) -> None:  # noqa: ARG001
        # Counted, since `stop` may be set for another reason.
        if next(_signals):
            os._exit(128 + number)
        stop.set()
        if begun is not None and not begun.is_set():
            os._exit(0)

    def forget() -> None:
        signal.set_wakeup_fd(-1)
        for number, default in _STOPPING.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, default)
        unblock()

    masks = threading.local()

    def block() -> None:
        # One that comes between the fork and `forget` waits for the child's own handlers.
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    for number in _STOPPING:
        with contextlib.suppress(ValueError):
            signal.signal(number, handle)
    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=forget)
