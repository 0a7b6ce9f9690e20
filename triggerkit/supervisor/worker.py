"""The `worker` command: a parent that holds the lease, and children that execute runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from triggerkit.embedded import lifeline
from triggerkit.errors import ConfigurationError
from triggerkit.runs.client import installation
from triggerkit.settings import Project, Settings
from triggerkit.supervisor.loading import load_project_tasks
from triggerkit.supervisor.losses import leave_losses_to_watch, watch_connections
from triggerkit.supervisor.standby import wait_for_turn
from triggerkit.worker.process import Lease, execute_runs, keep, new_worker_id, stop_on_signals

#: Seconds between two looks for a signal while the lease waits for Postgres.
LOOK_S = 0.5

#: Names the worker to its children.
WORKER_VARIABLE = "TRIGGERKIT_WORKER_ID"

#: Names the pipe a child tells its parent by that it is ready.
READY_VARIABLE = "TRIGGERKIT_READY_FD"


@dataclass(frozen=True, slots=True)
class Child:
    """A child process: told by its standard input first to import the tasks, then to take runs.

    It tells by a pipe that it is ready.
    """

    process: subprocess.Popen[bytes]
    ready_fd: int

    def tell(self) -> None:
        """Let it take the next step."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(b"1")
            self.process.stdin.flush()

    def wait_until_ready(self) -> bool:
        """Wait; False when it ended instead."""
        with os.fdopen(self.ready_fd, "rb") as pipe:
            return bool(pipe.read(1))


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
    stop_lease = threading.Event()
    line = lifeline.hold()
    arguments = ["--threads", str(threads), *(f"--queue={q}" for q in queues or ())]
    # Started first, since they take longest; they claim nothing before the lease is held.
    children = [_start_child(project, worker_id, line, arguments) for _ in range(processes)]
    wait_for_turn()
    stop = threading.Event()
    stop_on_signals(stop)
    for child in children:
        child.tell()
    namespace = asyncio.run(installation(settings))
    lease = Lease(settings, worker_id, list(queues or ()), processes * threads)
    kept = keep(settings, namespace, lease, stop_lease)
    watch_connections(settings)
    try:
        while not (lease.held.wait(LOOK_S) or stop.is_set()):
            pass
        for child in children:
            child.tell()
        for child in children:
            if not child.wait_until_ready():
                stop.set()
        if not stop.is_set():
            ready()
        _wait(children, stop)
    finally:
        for child in children:
            child.process.terminate()
        codes = [child.process.wait() for child in children]
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
    wait_for_turn(is_told=True)
    tasks = load_project_tasks(project)
    if not tasks:
        raise ConfigurationError(
            f"no task was found in {', '.join(project.tasks)}; decorate a function with @task"
        )
    if not sys.stdin.buffer.read(1):
        return
    namespace = asyncio.run(installation(settings))
    execute_runs(
        settings,
        tasks,
        worker_id=os.environ[WORKER_VARIABLE],
        namespace=namespace,
        queues=list(queues or sorted({task.queue for task in tasks.values()})),
        threads=threads,
        ready=_tell_parent,
        stop=stop,
    )


def _start_child(
    project: Project, worker_id: str, line: lifeline.Lifeline, arguments: Sequence[str]
) -> Child:
    read_fd, write_fd = os.pipe()
    command = [sys.executable, "-m", "triggerkit", "worker", "--child", *arguments]
    for name in project.tasks:
        command += ["--tasks", name]
    process = subprocess.Popen(
        command,
        cwd=project.folder,
        env={
            **os.environ,
            **line.environment(),
            WORKER_VARIABLE: worker_id,
            READY_VARIABLE: str(write_fd),
        },
        pass_fds=(line.read_fd, write_fd),
        stdin=subprocess.PIPE,
    )
    os.close(write_fd)
    return Child(process, read_fd)


def _tell_parent() -> None:
    fd = os.environ.get(READY_VARIABLE)
    if fd is not None:
        os.write(int(fd), b"1")
        os.close(int(fd))


def _wait(children: Sequence[Child], stop: threading.Event) -> None:
    """Return when a signal came or a child ended."""

    def watch(child: Child) -> None:
        child.process.wait()
        stop.set()

    for child in children:
        threading.Thread(target=watch, args=[child], daemon=True).start()
    stop.wait()
