"""The children of a worker: started, let go, replaced when they die, and ended."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from triggerkit.project import Project
from triggerkit.runs.keeper.local import started
from triggerkit.runs.keeper.processes import ExecutingProcess, ExecutingProcesses
from triggerkit.state.threads import LastingThread
from triggerkit.supervisor.workers import LOOK_S, WorkerProcess, start_child
from triggerkit.worker.process import new_worker_id

logger = logging.getLogger("triggerkit.worker")

#: Seconds before a child that died is replaced: the first wait and the longest.
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0

#: Seconds that a child works at least for its death to count as a first one again.
HEALTHY_S = 1.0

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


class Crew:
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

    def stop(self, grace_s: float | None = None) -> int:
        """Have them finish what they have, within `grace_s`; returns the worst exit code."""
        self._stopping.set()
        self._processes.begin_to_stop()
        # What ended before, and waits for its successor, was told of then.
        stopping = [child for child in self._children if child.ask_to_end()]
        # One that was only starting ends by the signal itself; where code of a run did not end, all
        # else has.
        well = {-signal.SIGTERM, STUCK}
        with _killed_after(grace_s, stopping, well):
            codes = [child.wait() for child in stopping]
        return max((abs(code) for code in codes if code not in well), default=0)

    def missing(self) -> Iterator[str]:
        """Yield what keeps this worker from executing runs."""
        ready = sum(child.is_ready for child in self._children)
        if ready < len(self._children) and not self._stopping.is_set():
            yield f"processes: {ready} of {len(self._children)} are ready"

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
            wait_s = next_wait_s(wait_s, time.monotonic() - began)
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


def next_wait_s(wait_s: float, worked_s: float) -> float:
    """Return the seconds until a child is replaced that was waited for so long and worked so long.

    It is of use: only where children die sooner than they are waited for do the waits grow.
    """
    if worked_s > max(wait_s, HEALTHY_S):
        return FIRST_WAIT_S
    return min(wait_s * 2, LONGEST_WAIT_S)


@contextmanager
def _killed_after(
    grace_s: float | None, children: Sequence[WorkerProcess], well: set[int]
) -> Iterator[None]:
    """Kill those that have not ended after `grace_s`: others take over what they execute."""

    def kill() -> None:
        logger.warning("runs took longer than %g s to end; other workers take them over", grace_s)
        well.add(-signal.SIGKILL)
        for child in children:
            child.kill()

    if grace_s is None:
        yield
        return
    timer = threading.Timer(grace_s, kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
