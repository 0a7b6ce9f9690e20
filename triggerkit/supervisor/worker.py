"""The `worker` command: a parent that holds the lease, and children that execute runs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from triggerkit import lifeline
from triggerkit.errors import ConfigurationError, unknown_name
from triggerkit.project import Project
from triggerkit.runs.client import installation
from triggerkit.runs.declared import DeclaredRuns, RunStep, plan_runs
from triggerkit.runs.keeper.keeper import Keeper
from triggerkit.runs.keeper.local import started
from triggerkit.runs.keeper.processes import ExecutingProcess, ExecutingProcesses
from triggerkit.runs.keeper.retention import Retention
from triggerkit.runs.session import by_index
from triggerkit.runs.transport.open import open_transport
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, pinned
from triggerkit.state.threads import LastingThread
from triggerkit.supervisor.loading import load_project_tasks
from triggerkit.supervisor.logs import echo_output, is_child, keep_own_loggers
from triggerkit.supervisor.losses import leave_losses_to_watch, watch_connections
from triggerkit.supervisor.workers import (
    LOOK_S,
    WORKER_VARIABLE,
    WorkerProcess,
    hear_cancellations,
    keep_orders,
    start_child,
    tell_ready,
    wait_to_go,
)
from triggerkit.tasks.registry import declared_runs
from triggerkit.tasks.version import code_version
from triggerkit.worker.process import (
    Worker,
    WorkerConfig,
    execute_runs,
    new_worker_id,
    stop_on_signals,
)
from triggerkit.worker.telemetry.output import capture_output

logger = logging.getLogger("triggerkit.worker")

#: A line that is dead without being closed is noticed before the lease is over.
NOTICE_SOON = {"tcp_user_timeout": 4000}

#: Seconds a child in which code of a run does not end may take to finish what else it has.
STUCK_S = 10.0

#: Seconds before a child that died is replaced: the first wait and the longest.
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0

#: Seconds a child lives after which its death counts as a first one again.
HEALTHY_S = 30.0

#: Seconds between two looks for a stop while the state is being reached.
STOP_LOOK_S = 0.1

#: The exit code of a child in which code of a run does not end.
STUCK = 75


@dataclass(frozen=True, slots=True)
class Sizes:
    """The number of a worker's processes, and of the runs that each takes at once: of sync tasks in
    threads, of async tasks on an event loop. Only of `queues`, when they are named."""

    processes: int
    threads: int
    async_runs: int
    queues: Sequence[str] | None = None

    def arguments(self) -> list[str]:
        """Do the same as options of the command."""
        options = [f"--queue={queue}" for queue in self.queues or ()]
        return ["--threads", str(self.threads), "--async-runs", str(self.async_runs), *options]


class _Crew:
    """The children of a worker: one that dies is replaced."""

    def __init__(self, project: Project, sizes: Sizes, processes: ExecutingProcesses) -> None:
        self._project = project
        self._sizes = sizes
        self._processes = processes
        self._worker_id = new_worker_id()
        self._started = 0
        self._children: list[WorkerProcess] = []
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start all, before there is any thread; they claim nothing before they are let go."""
        self._children = [self._start() for _ in range(self._sizes.processes)]

    def join(self) -> None:
        """Take them into the lease."""
        for child in self._children:
            self._join(child)

    def go(self, stop: threading.Event) -> bool:
        """Let them claim runs once they have their leases; False when one ended before it was
        ready, or at `stop`."""
        for child in self._children:
            if not self._wait_until_held(child, stop):
                return False
            child.go()
        ready = [child.wait_until_ready(stop) for child in self._children]
        return all(ready)

    def watch(self) -> None:
        """Replace those that die, until `stop`."""
        for place in range(len(self._children)):
            LastingThread(partial(self._keep, place), f"child {place}", daemon=True).start()

    def stop(self) -> int:
        """Have them finish what they have; returns the worst exit code."""
        self._stopping.set()
        self._processes.begin_to_stop()
        # What ended before, and waits for its successor, was told of then.
        stopping = [child for child in self._children if child.ask_to_end()]
        codes = [child.wait() for child in stopping]
        # One that was only starting ends by the signal itself; where code of a run did not end, all
        # else has.
        well = {-signal.SIGTERM, STUCK}
        return max((abs(code) for code in codes if code not in well), default=0)

    def _start(self) -> WorkerProcess:
        self._started += 1
        worker_id = f"{self._worker_id}/{self._started}"
        return start_child(self._project, worker_id, self._sizes.arguments())

    def _join(self, child: WorkerProcess) -> None:
        self._processes.join(
            ExecutingProcess(
                child.worker_id,
                child.pid,
                list(self._sizes.queues or ()),
                self._sizes.threads,
                self._sizes.async_runs,
                child.cancel,
                started(child.pid),
            )
        )

    def _keep(self, place: int) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            child = self._children[place]
            began = time.monotonic()
            code = child.wait()
            if self._stopping.is_set():
                return
            lived_s = time.monotonic() - began
            wait_s = FIRST_WAIT_S if lived_s > HEALTHY_S else min(wait_s * 2, LONGEST_WAIT_S)
            self._processes.leave(child.worker_id)
            logger.warning(
                "a process of the worker ended %s; its runs are queued again, and another follows "
                "in %.1f s",
                "since code of a run did not end" if code == STUCK else f"with code {code}",
                wait_s,
            )
            child.close()
            follower = self._start_after(wait_s)
            if follower is None:
                return
            self._children[place] = follower
            self._join(follower)
            if not self._wait_until_held(follower, self._stopping):
                return
            follower.go()
            follower.wait_until_ready(self._stopping)

    def _start_after(self, wait_s: float) -> WorkerProcess | None:
        """Start a child, as often as it takes: memory may be short. None at `stop`."""
        while not self._stopping.wait(wait_s):
            try:
                return self._start()
            except OSError as error:
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
                logger.warning("no process can be started (%s); next try in %.1f s", error, wait_s)
        return None

    def _wait_until_held(self, child: WorkerProcess, stop: threading.Event) -> bool:
        while not stop.is_set():
            if self._processes.wait_until_held(child.worker_id, LOOK_S):
                return True
        return False


def run_worker(
    settings: Settings, project: Project, sizes: Sizes, *, ready: Callable[[], None]
) -> int:
    """Work until a signal; returns the exit code.

    The parent imports no task: a task that blocks the interpreter cannot stop the heartbeat.
    """
    processes = ExecutingProcesses()
    crew = _Crew(project, sizes, processes)
    # Started first, before there is any thread, and since they take longest.
    crew.start()
    lifeline.watch()
    stop, stop_keeping = threading.Event(), threading.Event()
    stop_on_signals(stop)
    crew.join()
    namespace = asyncio.run(_installation(settings, stop))
    if namespace is None:
        return crew.stop()
    keeping = keep(settings, namespace, processes, stop_keeping)
    watch_connections(settings)
    code = 0
    try:
        if crew.go(stop) and not stop.is_set():
            ready()
            crew.watch()
            stop.wait()
    finally:
        code = crew.stop()
        stop_keeping.set()
        processes.wake()
        keeping.join()
    return code


async def _installation(settings: Settings, stop: threading.Event) -> str | None:
    """Return the id of this installation; None where the worker is stopped before it is known."""
    asked = asyncio.ensure_future(installation(settings))
    while not (await asyncio.wait({asked}, timeout=STOP_LOOK_S))[0]:
        if stop.is_set():
            asked.cancel()
            return None
    return asked.result()


def keep(
    settings: Settings, namespace: str, processes: ExecutingProcesses, stop: threading.Event
) -> threading.Thread:
    """Start the keeper of a worker."""
    keeper = Keeper(
        {**pinned(by_index(settings.state_dsn), "triggerkit keeper"), **NOTICE_SOON},
        open_transport(settings, namespace),
        processes,
        stop,
        Retention(settings.runs_keep),
    )
    thread = threading.Thread(target=keeper.run, name="keeper")
    thread.start()
    return thread


def run_child(settings: Settings, project: Project, sizes: Sizes) -> None:
    """Execute runs in this process, for the parent that started it."""
    # Whatever the modules do as they are imported, one signal ends it until a run may have begun.
    stop, begun = threading.Event(), threading.Event()
    stop_on_signals(stop, begun)
    keep_orders()
    leave_losses_to_watch()
    capture_output(echo_output())
    tasks = load_project_tasks(project)
    # The project's modules may have set up logging of their own, and handlers of signals.
    keep_own_loggers()
    if not tasks:
        missing = f"found no task in {', '.join(project.tasks)}; decorate a function with @task"
        if not is_child():
            raise ConfigurationError(missing)
        # `dev` loads the first one once it is saved.
        logger.warning(missing)
    queues = sorted({task.queue for task in tasks.values()})
    for queue in sizes.queues or ():
        if queue not in queues:
            logger.warning("--queue: %s", unknown_name("queue", queue, queues))
    stop_on_signals(stop, begun)
    if not wait_to_go():
        return
    if not is_child():
        _warn_of_differences(settings, declared_runs(tasks))
    config = WorkerConfig(
        os.environ[WORKER_VARIABLE],
        asyncio.run(installation(settings)),
        sizes.threads,
        sizes.async_runs,
        code_version(tasks.values()),
    )

    def ready(worker: Worker) -> None:
        hear_cancellations(worker.cancel)
        tell_ready()

    wanted = {n: t for n, t in tasks.items() if not sizes.queues or t.queue in sizes.queues}

    def leave_soon() -> None:
        # What a run that does not end does meanwhile, it does beside the next one of its key.
        timer = threading.Timer(STUCK_S, os._exit, [STUCK])
        timer.daemon = True
        timer.start()

    if execute_runs(
        settings, wanted, config, begin=begun.set, ready=ready, stop=stop, on_stuck=leave_soon
    ):
        # Threads that do not end would hold the process up.
        logging.shutdown()
        os._exit(STUCK)


def _warn_of_differences(settings: Settings, declared: DeclaredRuns) -> None:
    """Warn when the stored limits and schedules are others than the code's; change nothing.

    `dev` applies on each start: its workers have nothing to tell.
    """

    async def differences() -> list[RunStep]:
        async with await connect(settings.state_dsn, "triggerkit worker") as state:
            return await plan_runs(state, declared)

    for step in asyncio.run(differences()):
        logger.warning("not as the code declares it, until `triggerkit apply`: %s", step)
