"""The `worker` command: a parent that holds the lease, and children that execute runs."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from itertools import chain

from triggerkit import lifeline
from triggerkit.errors import ConfigurationError, PreflightFailed, unknown_name
from triggerkit.project import Project
from triggerkit.runs.client import installation
from triggerkit.runs.declared import DeclaredRuns, RunStep, plan_runs
from triggerkit.runs.keeper.keeper import Keeper
from triggerkit.runs.keeper.processes import ExecutingProcesses
from triggerkit.runs.keeper.retention import Retention
from triggerkit.runs.session import by_index
from triggerkit.runs.transport.open import open_transport
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, pinned
from triggerkit.supervisor.crew import STUCK, Crew, Sizes
from triggerkit.supervisor.loading import load_project_tasks
from triggerkit.supervisor.logs import echo_output, is_child, keep_own_loggers
from triggerkit.supervisor.losses import leave_losses_to_watch, watch_connections
from triggerkit.supervisor.probes.process_health import ProcessHealth
from triggerkit.supervisor.probes.server import serve_probes
from triggerkit.supervisor.workers import (
    WORKER_VARIABLE,
    hear_cancellations,
    keep_orders,
    tell_ready,
    wait_to_go,
)
from triggerkit.tasks.registry import declared_runs
from triggerkit.tasks.version import code_version
from triggerkit.worker.process import (
    Worker,
    WorkerConfig,
    execute_runs,
    stop_on_signals,
)
from triggerkit.worker.telemetry.output import capture_output

logger = logging.getLogger("triggerkit.worker")

#: A line that is dead without being closed is noticed before the lease is over.
NOTICE_SOON = {"tcp_user_timeout": 4000}

#: Seconds a child in which code of a run does not end may take to finish what else it has.
STUCK_S = 10.0

#: Seconds between two looks for a stop while the state is being reached.
STOP_LOOK_S = 0.1

#: Seconds in which a worker takes its leave of the others.
LEAVE_S = 5.0


def run_worker(
    settings: Settings, project: Project, sizes: Sizes, *, ready: Callable[[], None]
) -> int:
    """Work until a signal; returns the exit code.

    The parent imports no task: a task that blocks the interpreter cannot stop the heartbeat.
    """
    processes = ExecutingProcesses()
    crew = Crew(project, sizes, processes)
    # Started first, before there is any thread, and since they take longest.
    crew.start()
    lifeline.watch()
    stop, stop_keeping = threading.Event(), threading.Event()
    stop_on_signals(stop)
    away: set[str] = set()
    health = ProcessHealth(lambda: chain(crew.missing(), tuple(away)))
    try:
        serve_probes(settings, health)
    except PreflightFailed:
        crew.stop()
        raise
    crew.join()
    namespace = asyncio.run(_installation(settings, stop))
    if namespace is None:
        return crew.stop()
    keeping = keep(settings, namespace, processes, stop_keeping, health)
    watch_connections(settings, away)
    code = 0
    try:
        if crew.go(stop) and not stop.is_set():
            health.works()
            ready()
            crew.watch()
            stop.wait()
    finally:
        health.stop()
        code = crew.stop(settings.grace_s)
        stop_keeping.set()
        processes.wake()
        # Of a Postgres that answers nothing it takes no leave: others see that its lease is over.
        keeping.join(LEAVE_S)
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
    settings: Settings,
    namespace: str,
    processes: ExecutingProcesses,
    stop: threading.Event,
    health: ProcessHealth | None = None,
) -> threading.Thread:
    """Start the keeper of a worker; `health` is told that its heartbeat turns."""
    keeper = Keeper(
        {**pinned(by_index(settings.state_dsn), "triggerkit keeper"), **NOTICE_SOON},
        open_transport(settings, namespace),
        processes,
        stop,
        Retention(settings.runs_keep),
    )
    if health is not None:
        keeper.heartbeat.turned = partial(health.turned, "heartbeat")
    thread = threading.Thread(target=keeper.run, name="keeper", daemon=True)
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
