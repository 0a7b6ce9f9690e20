"""The `worker` command: a parent that holds the lease, and children that execute runs."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence

from triggerkit.embedded import lifeline
from triggerkit.errors import ConfigurationError
from triggerkit.runs.client import installation
from triggerkit.settings import Project, Settings
from triggerkit.supervisor.loading import load_project_tasks
from triggerkit.supervisor.losses import leave_losses_to_watch, watch_connections
from triggerkit.supervisor.workers import (
    WORKER_VARIABLE,
    Child,
    start_children,
    tell_ready,
    wait_to_go,
)
from triggerkit.worker.process import Lease, execute_runs, keep, new_worker_id, stop_on_signals

#: Seconds between two looks for a signal while the lease waits for Postgres.
LOOK_S = 0.5


def run_worker(
    settings: Settings,
    project: Project,
    *,
    processes: int,
    threads: int,
    queues: Sequence[str] | None,
    ready: Callable[[], None],
) -> int:
    """Work until a signal; returns the exit code.

    The parent imports no task: a task that blocks the interpreter cannot stop the heartbeat.
    """
    worker_id = new_worker_id()
    arguments = ["--threads", str(threads), *(f"--queue={q}" for q in queues or ())]
    # Started first, before there is any thread, and since they take longest. They claim nothing
    # before the lease is held.
    children = start_children(project, worker_id, arguments, processes)
    lifeline.watch()
    stop, stop_lease = threading.Event(), threading.Event()
    stop_on_signals(stop)
    namespace = asyncio.run(installation(settings))
    lease = Lease(settings, worker_id, list(queues or ()), processes * threads)
    kept = keep(settings, namespace, lease, stop_lease)
    watch_connections(settings)
    try:
        while not (lease.held.wait(LOOK_S) or stop.is_set()):
            pass
        for child in children:
            child.go()
        for child in children:
            if not child.wait_until_ready():
                stop.set()
        if not stop.is_set():
            ready()
        _wait(children, stop)
    finally:
        for child in children:
            child.ask_to_end()
        codes = [child.wait() for child in children]
        stop_lease.set()
        for thread in kept:
            thread.join()
    return max((abs(code) for code in codes), default=0)


def run_child(
    settings: Settings, project: Project, *, threads: int, queues: Sequence[str] | None
) -> None:
    """Execute runs in this process, for the parent that started it."""
    stop = threading.Event()
    stop_on_signals(stop)
    leave_losses_to_watch()
    tasks = load_project_tasks(project)
    if not tasks:
        raise ConfigurationError(
            f"no task was found in {', '.join(project.tasks)}; decorate a function with @task"
        )
    if not wait_to_go():
        return
    namespace = asyncio.run(installation(settings))
    execute_runs(
        settings,
        tasks,
        worker_id=os.environ[WORKER_VARIABLE],
        namespace=namespace,
        queues=list(queues or sorted({task.queue for task in tasks.values()})),
        threads=threads,
        ready=tell_ready,
        stop=stop,
    )


def _wait(children: Sequence[Child], stop: threading.Event) -> None:
    """Return when a signal came or a child ended."""

    def watch(child: Child) -> None:
        child.wait()
        stop.set()

    for child in children:
        threading.Thread(target=watch, args=[child], daemon=True).start()
    stop.wait()
