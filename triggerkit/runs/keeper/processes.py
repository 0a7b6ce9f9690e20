"""The processes of this worker that execute runs: their rows in the state are its lease.

The parent raises each one's heartbeat; it removes the row of one that died, so that the keeper
gives its runs to others at once.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from triggerkit.runs.keeper.local import home


@dataclass(frozen=True, slots=True)
class ExecutingProcess:
    """A process that executes runs. `cancel` is called with the id of a run it is to cancel.

    `started` tells it from another process that gets its id later; see `local.started`.
    """

    id: str
    pid: int
    queues: Sequence[str]
    slots: int
    async_slots: int
    cancel: Callable[[str], None]
    started: int | None = None


class ExecutingProcesses:
    """The processes of one worker; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: dict[str, ExecutingProcess] = {}
        self._gone: list[str] = []
        self.home = home()
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        #: The processes whose rows are there: a run claimed before would count as a dead worker's.
        self._held: set[str] = set()
        self._changed = threading.Condition()
        self._is_stopping = False

    def begin_to_stop(self) -> None:
        """The worker is asked to end: whatever ends its processes now, no run is to blame."""
        self._is_stopping = True
        self.wake()

    def join(self, process: ExecutingProcess) -> None:
        """From the next heartbeat on, `process` is there."""
        with self._lock:
            self._processes[process.id] = process
        self.wake()

    def leave(self, worker_id: str) -> None:
        """Forget a process that has died: its runs go to others."""
        with self._lock:
            if self._processes.pop(worker_id, None) is not None:
                self._gone.append(worker_id)
        self.wake()

    def gone(self) -> list[str]:
        """Processes that left since the last call."""
        with self._lock:
            gone, self._gone = self._gone, []
            return gone

    def hold(self, worker_ids: Sequence[str]) -> None:
        """Note that the rows of these processes are there."""
        with self._changed:
            self._held.update(worker_ids)
            self._changed.notify_all()

    def wait_until_held(self, worker_id: str, timeout_s: float) -> bool:
        """Wait until the process's row is there; False after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: worker_id in self._held, timeout_s)

    def rows(self) -> dict[str, Any]:
        """Return the processes' rows, as a column of values per name."""
        with self._lock:
            processes = list(self._processes.values())
        return {
            "ids": [p.id for p in processes],
            "pids": [p.pid for p in processes],
            "started": [p.started for p in processes],
            "queues": [",".join(p.queues) for p in processes],
            "slots": [p.slots for p in processes],
            "async_slots": [p.async_slots for p in processes],
            "hostname": socket.gethostname(),
            "home": self.home,
            "parent_pid": os.getpid(),
            "stopping": self._is_stopping,
        }

    def cancel(self, run_id: str, worker_id: str) -> None:
        """Have a process cancel a run."""
        with self._lock:
            process = self._processes.get(worker_id)
        if process is not None:
            process.cancel(run_id)

    def wake(self) -> None:
        """Have the keeper look at once."""
        os.write(self._write_fd, b"1")

    def fileno(self) -> int:
        """Readable once `wake` was called."""
        return self._read_fd

    def drain(self) -> None:
        """Forget the calls of `wake` so far."""
        try:
            os.read(self._read_fd, 4096)
        except BlockingIOError:
            return
