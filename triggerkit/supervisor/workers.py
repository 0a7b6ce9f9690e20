"""The child processes of a worker: forked where that is safe, else started anew."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

from triggerkit import lifeline
from triggerkit.project import Project

#: Names the worker to its children.
WORKER_VARIABLE = "TRIGGERKIT_WORKER_ID"

#: Names the pipe that a child reads its parent's orders from.
ORDERS_VARIABLE = "TRIGGERKIT_ORDERS_FD"

#: Names the pipe a child tells its parent by that it is ready.
READY_VARIABLE = "TRIGGERKIT_READY_FD"

#: Seconds between two looks for a signal while a child starts, or waits for its lease.
LOOK_S = 0.5


class Forked(BaseException):
    """This process is a child now. No `Exception`, which something on the way might catch."""


class WorkerProcess:
    """A child process: told by a pipe what to do, and telling by another one when ready.

    Its standard input is empty: that is what tasks, and programs that they start, may read.
    """

    def __init__(
        self, worker_id: str, pid: int, go_fd: int, ready_fd: int, line: lifeline.Lifeline
    ) -> None:
        self.worker_id = worker_id
        self.pid = pid
        self._go_fd = go_fd
        self._ready_fd = ready_fd
        self._line = line
        self._waiting = threading.Lock()
        self._telling = threading.Lock()
        # A child that does not hear must not hold up its parent, whose heartbeat is the lease.
        os.set_blocking(go_fd, False)
        self._code: int | None = None
        #: Whether it executes runs.
        self.is_ready = False

    def go(self) -> None:
        """Let it claim runs, once it is ready."""
        self._tell("go")

    def cancel(self, run_id: str) -> None:
        """Have it cancel a run."""
        self._tell(f"cancel {run_id}")

    def wait_until_ready(self, stop: threading.Event) -> bool:
        """Wait; False when it ended instead, and at `stop`."""
        with os.fdopen(self._ready_fd, "rb") as pipe:
            told = select.poll()
            told.register(pipe, select.POLLIN)
            while not told.poll(LOOK_S * 1000):
                if stop.is_set():
                    return False
            self.is_ready = bool(pipe.read(1))
            return self.is_ready

    def close(self) -> None:
        """It has ended: close what it was told by."""
        self.is_ready = False
        with self._telling, contextlib.suppress(OSError):
            self._line.close()
            os.close(self._go_fd)
            self._go_fd = -1

    def _tell(self, line: str) -> None:
        with self._telling, contextlib.suppress(OSError):
            os.write(self._go_fd, f"{line}\n".encode())

    def ask_to_end(self) -> bool:
        """Send SIGTERM; False when it is known to have ended."""
        if self._code is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        return True

    def kill(self) -> None:
        """Send SIGKILL, unless it is known to have ended."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait until it has ended; its exit code. Any thread may wait."""
        with self._waiting:
            if self._code is None:
                _, status = os.waitpid(self.pid, 0)
                self._code = os.waitstatus_to_exitcode(status)
            return self._code


def start_child(project: Project, worker_id: str, arguments: Sequence[str]) -> WorkerProcess:
    """Start `triggerkit worker --child ARGUMENTS`; it ends with this process.

    Raises:
        Forked: in a child; its command goes on from there.
    """
    line = lifeline.hold()
    command = ["worker", "--child", *arguments]
    for name in project.tasks:
        command += ["--tasks", name]
    return _start(command, worker_id, line)


def keep_orders() -> None:
    """In a child, keep the parent's orders from the programs that the project's code starts."""
    os.set_inheritable(_orders_fd(), False)


def wait_to_go() -> bool:
    """In a child, wait until its parent lets it go; False when the parent is gone."""
    return next(_told, "") == "go"


def hear_cancellations(cancel: Callable[[str], None]) -> None:
    """In a child, call `cancel` with each run that the parent says, from a thread."""

    def hear() -> None:
        for line in _told:
            word, _, run_id = line.partition(" ")
            if word == "cancel":
                cancel(run_id)

    threading.Thread(target=hear, name="cancellations", daemon=True).start()


def _lines() -> Iterator[str]:
    """Yield the parent's lines, from the descriptor itself: a thread that waits in a file
    object would have the interpreter abort at its end."""
    rest, fd = b"", _orders_fd()
    while part := os.read(fd, 4096):
        *lines, rest = (rest + part).split(b"\n")
        yield from (line.decode() for line in lines)


def _orders_fd() -> int:
    # Without the variable somebody has started it by hand, and types the orders.
    return int(os.environ.get(ORDERS_VARIABLE, "0"))


#: What the parent has said and nobody has heard yet.
_told = _lines()


def tell_ready() -> None:
    """In a child, tell its parent that it is ready."""
    fd = os.environ.get(READY_VARIABLE)
    if fd is not None:
        os.write(int(fd), b"1")
        os.close(int(fd))


def _start(command: Sequence[str], worker_id: str, line: lifeline.Lifeline) -> WorkerProcess:
    go_read, go_write = os.pipe()
    ready_read, ready_write = os.pipe()
    environment = {
        **line.environment(),
        WORKER_VARIABLE: worker_id,
        ORDERS_VARIABLE: str(go_read),
        READY_VARIABLE: str(ready_write),
    }
    fds = [go_read, go_write, ready_read, ready_write]
    try:
        pid = _fork_or_spawn(command, environment, line, fds)
    except OSError:
        line.close()
        for fd in fds:
            os.close(fd)
        raise
    for fd in (go_read, ready_write):
        os.close(fd)
    line.close_read()
    return WorkerProcess(worker_id, pid, go_write, ready_read, line)


def _fork_or_spawn(
    command: Sequence[str],
    environment: dict[str, str],
    line: lifeline.Lifeline,
    fds: Sequence[int],
) -> int:
    """Return the child's process id."""
    go_read, go_write, ready_read, ready_write = fds
    # Only a process of one thread may fork, and elsewhere the system's libraries do not bear it.
    if sys.platform == "linux" and threading.active_count() == 1:
        pid = os.fork()
        if pid == 0:
            for fd in (go_write, ready_read):
                os.close(fd)
            line.close_write()
            # None of the standard ones, which the parent may have been started without.
            orders = fcntl.fcntl(go_read, fcntl.F_DUPFD_CLOEXEC, 3)
            os.close(go_read)
            _empty_input()
            os.environ.update({**environment, ORDERS_VARIABLE: str(orders)})
            raise Forked
        return pid
    return subprocess.Popen(
        [sys.executable, "-m", "triggerkit", *command],
        env={**os.environ, **environment},
        pass_fds=(line.read_fd, go_read, ready_write),
        stdin=subprocess.DEVNULL,
    ).pid


def _empty_input() -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    if fd != 0:
        os.dup2(fd, 0)
        os.close(fd)
